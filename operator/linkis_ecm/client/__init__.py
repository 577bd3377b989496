"""The client of the gateway, blocking (EcmClient) and asynchronous (AsyncEcmClient), over httpx.

It needs the REST's models and paths (`linkis_ecm.api`) and nothing of the gateway, so it runs without the server's
packages. Must not import aiohttp, kopf, SQLAlchemy or pyarrow.

It is built sans I/O: `methods` makes request plans, `exchanges` and `streams` are generators of `protocol`'s steps, and
`sync_client` and `async_client` are the two drivers that do these steps over httpx.
"""

from linkis_ecm.client.async_client import AsyncEcmClient, AsyncEngine
from linkis_ecm.client.errors import (
    BadRequest,
    EcmError,
    EngineFailed,
    Forbidden,
    NotLoggedIn,
    ResultGone,
    ResultTruncated,
    TimedOut,
    TooMany,
    TruncatedTable,
    Unavailable,
)
from linkis_ecm.client.results import rows_of, tables_of, text_of
from linkis_ecm.client.streams import TaskEvent
from linkis_ecm.client.sync_client import EcmClient, Engine

__all__ = [
    "AsyncEcmClient",
    "AsyncEngine",
    "BadRequest",
    "EcmClient",
    "EcmError",
    "Engine",
    "EngineFailed",
    "Forbidden",
    "NotLoggedIn",
    "ResultGone",
    "ResultTruncated",
    "TaskEvent",
    "TimedOut",
    "TooMany",
    "TruncatedTable",
    "Unavailable",
    "rows_of",
    "tables_of",
    "text_of",
]
