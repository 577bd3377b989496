# ruff: noqa: T201
"""Shows: a task in the background. Its events as they come, its progress, and a large result as an Arrow file.

The stream resumes by itself after a broken connection, and no output comes twice.

Run: with the three variables of examples/README.md: python examples/07-events.py
"""

from linkis_ecm.client import EcmClient

CODE = """
import time
import pandas as pd
from IPython.display import display

MIME = "application/vnd.linkis.progress+json"
for step in range(1, 6):
    print("step", step)
    display({MIME: {"progress": step / 5, "message": f"step {step} of 5"}}, raw=True)
    time.sleep(0.2)
pd.DataFrame({"n": range(20_000)})
"""


def main() -> None:
    """Submits the code, shows its events until it ends, and saves its table."""
    with EcmClient() as client, client.engine("python") as engine:
        task = engine.submit(CODE)
        shown: dict[int, str] = {}  # what each output has become
        for event in engine.events(task.task_id):
            match event.event:
                case "output":
                    index, output = event.data["index"], event.data["output"]
                    text = output.get("text", output["type"])
                    # Text goes on behind what was told of its index; with `replaces` it stands in place of that.
                    shown[index] = text if event.data.get("replaces") else shown.get(index, "") + text
                    print("output:", text.rstrip())
                case "reset":
                    shown.clear()  # all outputs that were told are void
                case "status" | "end":
                    print(f"{event.data['status']}: {event.data.get('progress', 0):.0%}")
        table = engine.result_set(task.task_id, rows=3)  # a page as JSON: the first rows
        print(table.rows, "of", table.total_rows)
        size = client.download_result_set(engine.engine_id, "example.arrow", task.task_id)  # or ResultTruncated
        print(f"example.arrow has {size} bytes")


if __name__ == "__main__":
    main()
