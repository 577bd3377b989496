"""An archive in memory without threads, for virtual time; the real one is tested on a folder and fsspec's memory."""

from __future__ import annotations

from collections.abc import AsyncIterator


class MemoryArchive:
    """Bundles by (uid, attempt); `broken` makes every write fail."""

    def __init__(self) -> None:
        self.bundles: dict[tuple[str, int], dict[str, bytes]] = {}
        self.broken = False

    async def save(
        self, uid: str, attempt: int, name: str, chunks: AsyncIterator[bytes], *, limit: int, whole: bool = False
    ) -> tuple[int, str]:
        data = b"".join([chunk async for chunk in chunks])
        await self.put(uid, attempt, name, data[:limit])
        return len(data[:limit]), "" if len(data) <= limit else f"cut at {limit} bytes"

    async def put(self, uid: str, attempt: int, name: str, data: bytes) -> None:
        if self.broken:
            raise OSError("the archive is broken")
        self.bundles.setdefault((uid, attempt), {})[name] = data

    async def get(self, uid: str, attempt: int, name: str) -> bytes | None:
        return self.bundles.get((uid, attempt), {}).get(name)

    async def files(self, uid: str, attempt: int) -> dict[str, int]:
        return {name: len(data) for name, data in self.bundles.get((uid, attempt), {}).items()}

    async def attempts(self, uid: str) -> list[int]:
        return sorted({attempt for known, attempt in self.bundles if known == uid})

    async def discard(self, uid: str, attempt: int, name: str) -> None:
        self.bundles.get((uid, attempt), {}).pop(name, None)

    async def remove(self, uid: str) -> None:
        for key in [key for key in self.bundles if key[0] == uid]:
            del self.bundles[key]
