"""The Kubernetes API as our client relies on it: each function here holds on the fake and on a real server.

A behaviour gets a client and a namespace that it may fill; it removes what it made. No operator may run beside it: it
would write the engines' status. Must not know which server it talks to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from linkis_ecm.kube.client import KubeClient
from tools.testkit.contract import admission, deleting, reading, writing

BEHAVIOURS: dict[str, Callable[[KubeClient, str], Awaitable[None]]] = {
    function.__name__: function for module in (writing, deleting, admission, reading) for function in module.BEHAVIOURS
}
