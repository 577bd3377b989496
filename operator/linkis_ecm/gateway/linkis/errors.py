"""Linkis's own form of an error with a number (LinkisException, ExceptionManager)."""

from __future__ import annotations

from linkis_ecm.gateway.http.errors import Refused


def error_code(code: int, text: str) -> Refused:
    """What Linkis answers where an ErrorException was thrown."""
    return Refused(
        f"error code(错误码): {code}, error message(错误信息): {text}.",
        data={
            "errorMsg": {
                "level": 2,
                "errCode": code,
                "desc": text,
                "ip": None,
                "port": 0,
                "serviceKind": "linkis-cg-linkismanager",
            }
        },
    )
