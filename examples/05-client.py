# ruff: noqa: T201
"""Shows: the blocking Python client. Creates an engine for a block, runs code, reads tables, handles errors.

Run: with the three variables of examples/README.md: python examples/05-client.py
"""

import sys

from linkis_ecm.client import EcmClient, EcmError, tables_of, text_of

TABLE = """
import pandas as pd
pd.DataFrame({"city": ["Basel", "Bern"], "people": [178_000, 134_000]})
"""


def main() -> None:
    """One session from its creation to its end."""
    with EcmClient() as client, client.engine("python", resources={"memory": "1Gi"}) as engine:
        print("engine", engine.engine_id, "is", engine.info.status)

        print(text_of(engine.execute("6 * 7")))

        for row in tables_of(engine.execute(TABLE))[0]:
            print(row["city"], row["people"])

        failed = engine.execute("1 / 0")  # code that fails is a result, not an exception
        print(failed.status, "-", failed.outputs[-1]["name"])

        print("usage:", client.get_resource_usage(engine.engine_id).used)
        print("my engines:", client.list_engines().total)  # each with its status, as the gateway saw it last
        print("log of", engine.download_log("example-stdout.txt"), "bytes in example-stdout.txt")


if __name__ == "__main__":
    try:
        main()
    except EcmError as error:  # the gateway's own sentence; can_retry says whether another try may help
        sys.exit(f"{error} (another try may help: {error.can_retry})")
