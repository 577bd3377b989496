"""The client of the gateway, blocking (EcmClient) and asynchronous (AsyncEcmClient), over httpx.

Of the rest of linkis-ecm it needs the gateway's models alone, so that it runs where no gateway could. Must not import
anything else of the gateway, nor what that is made of.
"""

from linkis_ecm.client.async_client import AsyncEcmClient, AsyncEngine
from linkis_ecm.client.errors import (
    BadRequest,
    EcmError,
    EngineFailed,
    Forbidden,
    NotLoggedIn,
    ResultGone,
    TimedOut,
    TooMany,
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
    "TaskEvent",
    "TimedOut",
    "TooMany",
    "Unavailable",
    "rows_of",
    "tables_of",
    "text_of",
]
