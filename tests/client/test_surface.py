"""The client's surface: every method of the gateway, every parameter, the same in both clients, and nothing heavy."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from linkis_ecm.api import models, paths
from linkis_ecm.client import AsyncEcmClient, AsyncEngine, EcmClient, Engine, methods
from linkis_ecm.client.request_plan import RequestPlan
from linkis_ecm.gateway.routes import CONSOLE, METHODS, OURS, Method

ELEVEN = (
    "createEngineConnection", "executeCode", "getEngineStatus", "terminateEngine", "listEngines", "getEngineMetrics",
    "getResourceUsage", "updateResource", "reportResourceUsage", "sendEngineCommand", "getEngineLogs",
)  # fmt: skip
# What the client says by another method: submit_code, download_result_set.
OTHER_METHOD = {"executeCode": {"wait"}, "getResultSet": {"format"}}
PLANS = {
    "create_engine_connection": ("python",),
    "execute_code": ("e", "1"),
    "submit_code": ("e", "1"),
    "list_engines": (),
    "preview_cull": (),
    "update_resource": ("e", {"memory": "2Gi"}),
    "report_resource_usage": ("e", 1, 1.0),
    "send_engine_command": ("e", "status"),
    "who_am_i": (),
    "list_engine_plugins": (),
    "get_overview": (),
    "list_transitions": ("e",),
}
# Of the console's methods all but its stream.
CALLED = (*OURS, *(method for method in CONSOLE if not method.is_stream))


def python_name(wire: str) -> str:
    return re.sub("(?<!^)([A-Z])", r"_\1", wire).lower()


def plan_of(method: Method) -> RequestPlan[models.EngineInfo] | None:
    maker = getattr(methods, python_name(method.name), None)
    return None if maker is None else maker(*PLANS.get(python_name(method.name), ("e",)))


@pytest.mark.parametrize("client", [EcmClient, AsyncEcmClient])
@pytest.mark.parametrize("method", CALLED, ids=lambda method: method.name)
def test_every_method_of_the_gateway_has_one_with_all_its_parameters(method: Method, client: type) -> None:
    function = getattr(client, python_name(method.name))
    assert method.name in function.__doc__
    if method.request is not None:
        wanted = set(method.request.model_fields) - OTHER_METHOD.get(method.name, set())
        assert wanted - set(inspect.signature(function).parameters) == set()


@pytest.mark.parametrize("method", CALLED, ids=lambda method: method.name)
def test_a_plan_goes_where_the_gateway_has_it_and_waits_longer_than_it(method: Method) -> None:
    plan = plan_of(method)
    if plan is None:
        assert method.response is None, "only streams and files are no plans"
        return
    assert (plan.verb, plan.path) == (method.verb, method.path)
    assert plan.answer is method.response
    assert plan.seconds > (method.seconds or 0) or method.name == "createEngineConnection"


def test_askengineconn_goes_to_linkiss_path_with_its_labels() -> None:
    plan = methods.ask_engine_conn(
        "python", engine_version="3.11", user="jane-doe", creator="IDE", labels={"codeType": "py"}, timeout_seconds=120,
        properties={"linkis.engineconn.memory": "2g"}, explain=True,
    )  # fmt: skip
    (route,) = [method for method in METHODS if method.name == "askEngineConn"]
    assert (plan.verb, plan.path) == (route.verb, route.path)
    assert plan.fields == {
        "labels": {"engineType": "python-3.11", "userCreator": "jane-doe-IDE", "codeType": "py"},
        "properties": {"linkis.engineconn.memory": "2g"}, "timeOut": 120_000, "explain": True,
    }  # fmt: skip
    assert not plan.repeatable
    assert plan.seconds > 150
    assert methods.ask_engine_conn("python", creator="IDE").fields["labels"]["userCreator"] == {"creator": "IDE"}
    assert methods.ask_engine_conn("python").fields == {"labels": {"engineType": "python"}}


def test_a_creation_is_waited_for_longer_than_the_gateway_waits() -> None:
    assert methods.create_engine_connection("python", timeout_seconds=models.CREATE_SECONDS_MAX).seconds > 630


@pytest.mark.parametrize(("blocking", "asynchronous"), [(EcmClient, AsyncEcmClient), (Engine, AsyncEngine)])
def test_both_clients_have_the_same_methods_with_the_same_parameters(blocking: type, asynchronous: type) -> None:
    def public(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(found).parameters)
            for name, found in vars(kind).items()
            if not name.startswith("_") and callable(found)
        }

    assert public(blocking) == public(asynchronous)


@pytest.mark.parametrize("client", [EcmClient, AsyncEcmClient])
@pytest.mark.parametrize("name", ELEVEN)
def test_the_eleven_have_their_own_names_too(name: str, client: type) -> None:
    assert getattr(client, name) is getattr(client, python_name(name))


def test_each_path_is_one_that_the_gateway_serves() -> None:
    served = {method.path for method in OURS}
    assert {f"{paths.BASE}/{name}" for name in ELEVEN} <= served
    assert (paths.PREFIX, paths.BASE) == ("/api/rest_j/v1", "/api/rest_j/v1/engineconnManager")


def test_importing_it_loads_nothing_of_a_gateway() -> None:
    heavy = ("aiohttp", "kopf", "kubernetes", "sqlalchemy", "pyarrow", "s3fs", "linkis_ecm.gateway.routes", "yaml")
    code = f"import linkis_ecm.client, sys; print([name for name in {heavy!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.strip() == "[]"
