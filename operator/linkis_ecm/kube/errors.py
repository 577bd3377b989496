"""What can go wrong between us and the API server, as types. Knows nothing of transports or retries.

The names are Kubernetes's own reasons, so they carry no Error at their end.
"""
# ruff: noqa: N818

from __future__ import annotations

from typing import Any


class KubeconfigError(FileNotFoundError):
    """There is no way to reach a cluster: one sentence that names the setting and the remedy."""


class ApiError(Exception):
    """The API server's refusal, or (status 0) no answer at all. `reason` is Kubernetes's own, in CamelCase."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_malformed(self) -> bool:
        """Whether the request itself is at fault (400, 413, 422): the same one will be refused again."""
        return self.status in (400, 413, 422)


class Unauthorized(ApiError):
    """401: no credentials, or they have expired."""


class Forbidden(ApiError):
    """403: RBAC, a quota, an admission policy, or a namespace that is being deleted."""


class NotFound(ApiError):
    """404: no such object, or no such kind (a CRD that is not installed)."""


class Conflict(ApiError):
    """409: the resourceVersion or uid asked for is not the current one."""


class AlreadyExists(Conflict):
    """409 on create: an object of that name is there."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks its schema or an immutable field."""


class Throttled(ApiError):
    """429: the request was not executed; come back after `retry_after`."""


class ServerError(ApiError):
    """5xx: the request may or may not have been executed."""


class Unreachable(ApiError):
    """No answer: refused, reset, timed out. The request may or may not have been executed."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone, 422: Invalid, 429: Throttled,
}  # fmt: skip


class ReplyTooLarge(ApiError):
    """The answer is longer than we read; status 0. Asking for less may help."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "ReplyTooLarge", message)


def error_from_status(status: int, body: Any, *, retry_after: float | None = None) -> ApiError:
    """The typed error of an HTTP status and its body (a metav1.Status, or whatever a proxy on the way has sent)."""
    known = body if isinstance(body, dict) else {}
    reason = str(known.get("reason") or f"HTTP{status}")
    message = str(known.get("message") or (body if isinstance(body, str) and body else "no message"))
    if retry_after is None:
        seconds = (known.get("details") or {}).get("retryAfterSeconds")
        retry_after = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None
    if status >= 500:
        kind: type[ApiError] = ServerError
    elif reason == "AlreadyExists":
        kind = AlreadyExists
    elif reason == "Expired":
        kind = Gone
    else:
        kind = _BY_STATUS.get(status, ApiError)
    return kind(status, reason, message, retry_after)
