"""ecinfo/* and rm/*: the history of engines, and what is running (ECResourceInfoRestfulApi, RMMonitorRest)."""

from __future__ import annotations

import re
from datetime import datetime

from linkis_ecm.engine.matching import linkis_state
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import bad_request, denied, shown, unavailable
from linkis_ecm.gateway.inventory.history import Record
from linkis_ecm.gateway.inventory.history import Records as Store
from linkis_ecm.gateway.inventory.lookup import require_owner
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.linkis import shapes
from linkis_ecm.gateway.linkis.requests import EcList, Nothing, Records, Ticket

_CREATOR = re.compile(r"[a-zA-Z\d_.]+", re.ASCII)
_TIME = "%Y-%m-%d %H:%M:%S"


def _store(call: Call) -> Store:
    if call.gateway.records is None:
        raise unavailable("This gateway has no database: set ECM_DATABASE_URL (database.url of the chart)")
    return call.gateway.records


def _about(call: Call, row: Record) -> None:
    call.audit.add(row.ticket_id)
    call.about_user(row.create_user)


async def _own_row(call: Call, store: Store, ticket: str) -> Record:
    """The ticket's row, where the caller may use the engine that it is of. Raises Refused."""
    row = await call.gateway.history.query(lambda: store.record_by_ticket(ticket))
    refusal = bad_request(f"tickedId not exist:{shown(ticket, 128)}")
    if row is None:
        raise refusal
    _about(call, row)
    namespace = ""
    if call.caller.reach is not None:
        # Linkis's table has no namespaces, ours has. None: the row is of an ECM of Linkis.
        engine = await call.gateway.history.query(lambda: store.engine(row.ticket_id))
        namespace = engine.namespace if engine is not None else ""
    require_owner(call.caller, row.create_user, namespace, refusal)
    return row


async def get_record(call: Call, request: Ticket) -> Answer:
    """ecinfo/get: the row as it is."""
    store = _store(call)
    row = await _own_row(call, store, request.ticketid)
    return Answer({"ecResourceInfoRecord": shapes.record_row(row)})


async def delete_record(call: Call, ticket: str) -> Answer:
    """ecinfo/delete: an ended engine's row, by its ticket. Linkis's path ends with a brace too many: both are taken."""
    store = _store(call)
    ticket = ticket.rstrip("}")
    row = await _own_row(call, store, ticket)
    view = await call.gateway.lookup.find(ticket)
    # Another user's engine may name this ticket: it is not spoken of, and does not keep the row.
    if view is not None and view.in_cluster and call.may_use(view):
        # The operator would write it again: a record follows its resource.
        raise bad_request(f"{view.title} is {view.state}: delete its record when it has ended and its resource is gone")
    await call.gateway.history.query(lambda: store.delete_record(ticket))
    return Answer({"ecResourceInfoRecord": shapes.record_row(row)})


async def list_records(call: Call, request: Records) -> Answer:
    """ecinfo/ecrHistoryList: a page of rows, newest first; `totalPage` is how many rows there are, as Linkis has it."""
    if request.creator and not _CREATOR.fullmatch(request.creator):
        raise bad_request("Invalid creator : " + shown(request.creator, 128))
    store = _store(call)
    now = call.gateway.clock().replace(tzinfo=None)
    start = _time("startDate", request.start_date) or now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = _time("endDate", request.end_date) or now
    user = (request.creator or None) if call.caller.is_admin else call.caller.user
    call.about_user(user)
    reach = call.caller.reach
    rows, total = await call.gateway.history.query(
        lambda: store.list_records(
            user=user,
            status=request.status or None,
            engine_type=request.engine_type or None,
            instance=request.instance or None,
            namespaces=None if reach is None or reach.includes("") else reach.namespaces,
            start=start,
            end=end,
            page=request.page_now,
            page_size=request.page_size,
        )
    )
    return Answer({"engineList": [shapes.record_vo(row) for row in rows], "totalPage": total})


def _time(name: str, text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, _TIME)  # noqa: DTZ007 - the rows' own naive UTC
    except ValueError:
        raise bad_request(f"{name} is {shown(text, 128)!r}: write it as yyyy-MM-dd HH:mm:ss") from None


async def ec_list(call: Call, request: EcList) -> Answer:
    """ecinfo/ecList: live engines, for admins."""
    if not call.caller.is_admin:
        raise denied(bad_request(f"User: {call.caller.user} has no permission to get ecList"))
    call.about_user(None)
    for creator in request.creators:
        if not _CREATOR.fullmatch(creator):
            raise bad_request("Invalid creator : " + shown(creator, 128))
    ecm, now = call.gateway.settings.instance, call.gateway.clock()
    found = []
    for known in call.usable_engines():
        view = with_sizes(call.gateway.plugins, known)
        status = str(linkis_state(view, now))
        if view.is_final or not _wanted(view, status, request):
            continue
        found.append(
            {
                "instance": view.shown_instance,
                "name": shapes.ENGINECONN,
                "owner": view.user,
                "ticketId": view.shown_ticket,
                "mark": "process",
                "createTime": shapes.millis(view.created),
                "updateTime": shapes.millis(view.since),
                "instanceStatus": status,
                "lastUnlockTimestamp": "",
                "useResource": {"driver": shapes.load(cpu_milli=view.cpu_milli, memory_bytes=view.memory_bytes)},
                "ecmInstance": view.ecm_instance or ecm,
                "engineType": view.engine_type,
                "labelValue": view.label_value,
            }
        )
    return Answer({"ecList": found})


def _wanted(view: KnownEngine, status: str, request: EcList) -> bool:
    return (
        (not request.creators or view.creator in request.creators or view.user in request.creators)
        and (not request.engine_types or view.engine_type in request.engine_types)
        and (not request.statuss or status in request.statuss)
        and (not request.ec_instances or view.service_instance in request.ec_instances)
    )


async def engine_types(call: Call, _: Nothing) -> Answer:
    """rm/engineType: what the catalogue offers."""
    return Answer({"engineType": call.gateway.plugins.types()})


async def user_resources(call: Call, _: Nothing) -> Answer:
    """rm/userresources: what the caller's engines hold, by creator and engine type."""
    groups: dict[str, dict[str, list[KnownEngine]]] = {}
    ecm, now = call.gateway.settings.instance, call.gateway.clock()
    for known in call.usable_engines():
        view = with_sizes(call.gateway.plugins, known)
        if view.user == call.caller.user and not view.is_final:
            groups.setdefault(f"{view.user}-{view.creator}", {}).setdefault(view.engine_type, []).append(view)
    return Answer(
        {
            "userResources": [
                {
                    "userCreator": owner,
                    "engineTypes": [
                        {
                            "engineType": kind,
                            "usedResource": shapes.load(
                                cpu_milli=sum(view.cpu_milli for view in views),
                                memory_bytes=sum(view.memory_bytes for view in views),
                                instances=len(views),
                            ),
                            "engines": [shapes.engine_vo(view, ecm=ecm, now=now) for view in views],
                        }
                        for kind, views in sorted(kinds.items())
                    ],
                }
                for owner, kinds in sorted(groups.items())
            ]
        }
    )
