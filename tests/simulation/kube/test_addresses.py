"""Addresses of engines: of IPv6 and of IPv4, with and without a host name."""

from __future__ import annotations

import pytest

from linkis_ecm.agent_client.address import agent_host
from linkis_ecm.engine.names import host_port
from linkis_ecm.kube.resources import PODS
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


@pytest.mark.parametrize("ip", ["10.0.0.7", "fd00:10:244::5", "2001:db8::1"])
def test_an_address_is_read_as_it_was_written(ip: str) -> None:
    written = host_port(ip, 9105)
    assert agent_host(written, 9105) == (f"[{ip}]:9105" if ":" in ip else f"{ip}:9105")


async def test_an_engine_of_an_ipv6_cluster_is_reached_and_stopped(world: World) -> None:
    world.addresses = "fd00:10:244::{}"
    await world.start()
    world.create("e")
    await world.until_state("e", "Idle")
    assert world.status("e")["address"] == "[fd00:10:244::1]:9105"
    # A question of a silent agent goes there, too.
    world.agent("e").end()
    await world.until(lambda: world.agent("e").sequence > 3, 120)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert world.stops == ["e"]


@pytest.mark.parametrize(
    ("addresses", "where", "instance"),
    [
        ("10.0.0.{}", (NAMESPACE,), None),
        ("10.0.0.{}", (), None),
        ("10.0.0.{}", ("other",), "10.0.0.1:9105"),
        ("fd00::{}", ("other",), "[fd00::1]:9105"),
    ],
)
async def test_an_engine_without_the_service_in_its_namespace_is_named_by_its_address(
    world: World, addresses: str, where: tuple[str, ...], instance: str | None
) -> None:
    world.addresses = addresses
    await world.start(engine_service_namespaces=where)
    world.create("e")
    await world.until_state("e", "Idle")
    pod = world.pods("e")[0]["metadata"]["name"]
    row = world.row("e")
    assert row is not None
    assert row.service_instance == (instance or f"{pod}.linkis-engines.{NAMESPACE}:9105")
    assert world.cluster.peek(PODS, (NAMESPACE, pod)) is not None
    # clusterWide serves namespaces that the chart has not prepared: the engine says what it lacks, and who adds it.
    told = world.condition("e", "NamespacePrepared")
    assert (told == {}) is (instance is None)
    if told:
        assert (told["status"], told["reason"]) == ("False", "NotInEngineNamespaces")
        assert f"{{name: {NAMESPACE}, create: false}} to engineNamespaces" in told["message"]
        assert world.condition("e", "Ready")["status"] == "True"
