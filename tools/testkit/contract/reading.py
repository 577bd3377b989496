"""Reading: lists in pages, selectors, and the events of a watch."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing

from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, LEASES, PODS, Resource
from tools.testkit.contract.objects import CHANGES, KINDS, RUN, making, name_of, version_of


def _lists(client: KubeClient, resource: Resource) -> float:
    return float(client.metrics.requests.labels("list", resource.plural, "200")._value.get())


async def a_list_in_pages_gives_everything_once(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            names = sorted([name_of(await made.create(resource)) for _ in range(5)])
            before = _lists(client, resource)
            paged = await client.list(resource, namespace=namespace, label_selector=made.selector, limit=2)
            assert _lists(client, resource) - before == 3
            assert [name_of(item) for item in paged.items] == names
            whole = await client.list(resource, namespace=namespace, label_selector=made.selector)
            assert whole.items == paged.items
            assert int(paged.resource_version) >= max(version_of(item) for item in paged.items)
            everywhere = await client.list(resource, label_selector=made.selector)
            assert everywhere.items == whole.items


async def an_empty_list_has_a_version_to_watch_from(client: KubeClient, namespace: str) -> None:
    found = await client.list(CONFIGMAPS, namespace=namespace, label_selector=f"{RUN}={uuid.uuid4().hex}")
    assert found.items == []
    assert int(found.resource_version) > 0


async def a_label_selector_chooses(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        names = {
            colour: name_of(await made.create(PODS, made.body(PODS, labels={"colour": colour} if colour else {})))
            for colour in ("red", "blue", "")
        }
        for selector, expected in (
            ("colour=red", {"red"}),
            ("colour!=red", {"blue", ""}),
            ("colour in (red, blue)", {"red", "blue"}),
            ("colour notin (red, blue)", {""}),
            ("colour", {"red", "blue"}),
            ("!colour", {""}),
            ("colour,colour!=red", {"blue"}),
        ):
            found = await client.list(PODS, namespace=namespace, label_selector=f"{made.selector},{selector}")
            assert {name_of(item) for item in found.items} == {names[colour] for colour in expected}, selector


async def a_field_selector_chooses(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        pods = [await made.create(PODS) for _ in range(2)]
        for field, expected in (
            (f"metadata.name={name_of(pods[0])}", pods[:1]),
            (f"metadata.name!={name_of(pods[0])}", pods[1:]),
            ("status.phase=Pending", pods),
            ("status.phase=Running", []),
        ):
            found = await client.list(
                PODS, namespace=namespace, label_selector=made.selector, field_selector=field
            )  # fmt: skip
            assert {name_of(item) for item in found.items} == {name_of(pod) for pod in expected}, field
        alice = await made.engine(user="alice")
        await made.engine(user="bob")
        found = await client.list(
            ENGINECONNS, namespace=namespace, label_selector=made.selector, field_selector="spec.user=alice"
        )
        assert [name_of(item) for item in found.items] == [name_of(alice)]


async def _watched(
    client: KubeClient, resource: Resource, namespace: str, version: str, selector: str, count: int
) -> list[tuple[str, Object]]:
    """The first `count` changes after that version, within 60 s."""
    seen_events: list[tuple[str, Object]] = []
    watch = client.watch(resource, resource_version=version, namespace=namespace, label_selector=selector)
    async with asyncio.timeout(60), aclosing(watch):
        async for event in watch:
            if event.type != "BOOKMARK":
                seen_events.append((event.type, event.object))
            if len(seen_events) == count:
                break
    return seen_events


async def a_watch_from_a_list_tells_each_change_in_order(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        for resource in KINDS:
            await made.create(resource)
            # A pod is marked before it goes, even where it has nothing to wait for.
            marks = ["MODIFIED"] if resource == PODS else []
            kinds = ["ADDED", "MODIFIED", *marks, "DELETED"]
            start = (await client.list(resource, namespace=namespace, label_selector=made.selector)).resource_version
            live = asyncio.create_task(_watched(client, resource, namespace, start, made.selector, len(kinds)))
            created = await made.create(resource)
            patched = await client.patch(resource, name_of(created), CHANGES[resource], namespace=namespace)
            await client.delete(resource, name_of(created), namespace=namespace)
            # Open while it happened, and opened afterwards: the same story.
            late = await _watched(client, resource, namespace, start, made.selector, len(kinds))
            for story in (await live, late):
                assert [kind for kind, _ in story] == kinds
                assert {item["metadata"]["uid"] for _, item in story} == {created["metadata"]["uid"]}
                for _, item in story[2:-1]:
                    assert item["metadata"]["deletionGracePeriodSeconds"] == 0
                    assert item["metadata"]["generation"] == created["metadata"]["generation"] + 1
                versions = [version_of(item) for _, item in story]
                assert versions[:2] == [version_of(created), version_of(patched)]
                assert versions == sorted(set(versions)), "each event is newer than the one before"
                assert int(start) < versions[0]
                assert {(item["kind"], item["apiVersion"]) for _, item in story} == {
                    (resource.kind, resource.api_version)
                }


async def an_object_that_leaves_the_selection_is_deleted_for_its_watch(client: KubeClient, namespace: str) -> None:
    async with making(client, namespace) as made:
        start = (await client.list(PODS, namespace=namespace)).resource_version
        pod = await made.create(PODS, made.body(PODS, labels={"colour": "red"}))
        for colour in ("blue", "red"):
            label = {"metadata": {"labels": {"colour": colour}}}
            await client.patch(PODS, name_of(pod), label, namespace=namespace)
        story = await _watched(client, PODS, namespace, start, f"{made.selector},colour=red", 3)
        assert [kind for kind, _ in story] == ["ADDED", "DELETED", "ADDED"]
        versions = [version_of(item) for _, item in story]
        assert versions == sorted(set(versions))


async def a_watch_ends_by_itself_after_its_time(client: KubeClient, namespace: str) -> None:
    start = (await client.list(LEASES, namespace=namespace)).resource_version
    loop = asyncio.get_running_loop()
    begun = loop.time()
    nothing = f"{RUN}={uuid.uuid4().hex}"
    watch = client.watch(
        LEASES, resource_version=start, namespace=namespace, label_selector=nothing, timeout_seconds=2
    )  # fmt: skip
    async with asyncio.timeout(60), aclosing(watch):
        seen_events = [event async for event in watch if event.type != "BOOKMARK"]
    assert seen_events == []
    # The server's own time for a watch that names none is half an hour and more.
    assert 1.5 <= loop.time() - begun <= 30


BEHAVIOURS = (
    a_list_in_pages_gives_everything_once,
    an_empty_list_has_a_version_to_watch_from,
    a_label_selector_chooses,
    a_field_selector_chooses,
    a_watch_from_a_list_tells_each_change_in_order,
    an_object_that_leaves_the_selection_is_deleted_for_its_watch,
    a_watch_ends_by_itself_after_its_time,
)
