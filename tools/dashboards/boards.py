"""All dashboards, in their order."""

from __future__ import annotations

from tools.dashboards import engines, gateway, operator, overview

BOARDS = (overview.BOARD, engines.BOARD, gateway.BOARD, operator.BOARD)
