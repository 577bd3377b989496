"""`python -m tools.loopback.part gateway|operator`: the real process, whose agents may be on loopback.

In a cluster both refuse an agent's address that no pod has, such as one of loopback; there is no setting for that, so
it is said here. All else is as `python -m linkis_ecm gateway|operator` does it. Must not change anything more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

from linkis_ecm.controller import operator
from linkis_ecm.controller.pods import executor
from linkis_ecm.controller.pool import claims
from linkis_ecm.controller.settings import from_environment
from linkis_ecm.engine.names import AGENT_PORT, host_port
from linkis_ecm.engine.warm import fit
from linkis_ecm.gateway import main as gateway
from linkis_ecm.gateway.settings import read_settings

_claim_environment = fit.claim_environment


def _without_log_dir(*given: Any) -> list[dict[str, Any]]:
    """A claim's variables. On loopback each agent has a log folder of its own, which no claim may change."""
    return [one for one in _claim_environment(*given) if one["name"] != "ECM_LOG_DIR"]


def main(part: str) -> None:
    """Run that part until SIGTERM."""
    logging.basicConfig(level="INFO", format="%(asctime)s [%(levelname)-5s] %(name)s - %(message)s", stream=sys.stderr)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    os.umask(0o007)
    if part == "gateway":
        asyncio.run(gateway.run(read_settings(os.environ).model_copy(update={"agent_port": 0})))
        return
    for module in (executor, claims):
        vars(module)["AGENT_PORT"] = 0  # any port, and so any address: linkis_ecm.agent_client.address
    vars(claims)["host_port"] = lambda host, _: host_port(host, AGENT_PORT)  # the agents listen on the usual one
    vars(fit)["claim_environment"] = _without_log_dir
    asyncio.run(operator.run(from_environment(os.environ)))


if __name__ == "__main__":
    main(sys.argv[1])
