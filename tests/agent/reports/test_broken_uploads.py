"""Uploads whose connection breaks off: each log is tried, whatever becomes of the one before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.logs.files import LogFiles
from linkis_ecm.agent.operator_client import client
from linkis_ecm.agent.operator_client.archive import upload_logs
from linkis_ecm.agent.settings import read_settings

SIZE = 4 << 20


async def nothing() -> None:
    """No results are left to be sent."""


async def test_a_connection_that_breaks_off_keeps_no_other_log_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PIECE", 4096)
    came: list[str] = []

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append((await reader.readuntil(b"\r\n\r\n")).decode().split("/archive/")[1].split("?")[0])
        writer.transport.abort()

    server = await asyncio.start_server(leave, "127.0.0.1", 0, limit=1 << 20)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = read_settings({"ECM_AGENT_KEY": "k", "ECM_REPORT_URL": url, "ECM_LOG_DIR": str(tmp_path)})
    logs = LogFiles(settings.log_dir, file_bytes=64 << 20, total_bytes=1 << 30)
    results: Any = SimpleNamespace(flush=nothing)
    try:
        written = [name for name in LOG_NAMES if name not in ("stdout", "stderr")]
        for name in written:
            (tmp_path / name).write_bytes(b"x" * SIZE)
        identity = Identity(key="k", pod_uid="p", nonce="0" * 32, token_file="")
        await upload_logs(settings, identity, logs, seconds=60, results=results)
    finally:
        logs.close(1.0)
        server.close()
    assert set(written) <= set(came)
    told = (tmp_path / "stdout").read_text()
    assert all(f"log {name} was not archived" in told for name in written)
