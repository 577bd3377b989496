"""What the tests of logins and limits share: a call as far as an authenticator looks at it, and a clock to turn."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Sent:
    """Who calls, by headers, cookies and address."""

    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    remote: str | None = "127.0.0.1"


class Clock:
    """Stands still until it is set."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
