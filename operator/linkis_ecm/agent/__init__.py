"""The process in every engine pod: one IPython kernel, an HTTP API in front of it, reports home.

Kept empty on purpose: `python -m linkis_ecm.agent` pays for every import made here before the kernel is spawned.
"""
