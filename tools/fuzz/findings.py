"""What a fuzz run found: each kind once, with its seed and the input that led to it, in a folder outside the checkout.

Must not judge.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

# The inputs before a finding that nothing names, such as a traceback in a log, are kept with it.
RECENT = 60
_NUMBERS = re.compile(r"[0-9a-f]{8,}|\d+")


@dataclass
class Findings:
    """Kept by (route, what); numbers and ids in `what` do not make another finding."""

    folder: Path
    seed: int
    seen: Counter[str] = field(default_factory=Counter)
    recent: deque[tuple[float, str, bytes]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def sent(self, route: str, data: bytes) -> None:
        """An input, before it is sent."""
        self.recent.append((time.time(), route, data[:20_000]))

    def add(self, route: str, what: str, detail: str = "", data: bytes | None = None) -> bool:
        """Keep it; whether it is new. `data`: the input, where it is known; else the last ones are kept."""
        kind = f"{route}: {_NUMBERS.sub('#', what)[:300]}"
        self.seen[kind] += 1
        if self.seen[kind] > 1:
            return False
        print(f"FOUND {route}: {what}", flush=True)
        name = hashlib.sha256(kind.encode()).hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {"route": route, "what": what, "detail": detail, "seed": self.seed, "at": time.time()}
        (self.folder / f"{name}.json").write_text(json.dumps(found, indent=1))
        if data is not None:
            (self.folder / f"{name}.input").write_bytes(data)
        else:
            inputs = [{"at": at, "route": where, "data": sent.decode("latin-1")} for at, where, sent in self.recent]
            (self.folder / f"{name}.recent.json").write_text(json.dumps(inputs, indent=1))
        return True
