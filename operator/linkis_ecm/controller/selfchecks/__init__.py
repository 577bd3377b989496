"""How the operator checks and repairs itself: resync, audit, canary, health page. Used by `controller.operator`."""
