"""Fuzzes every port of a loopback installation: schemathesis, raw sockets, and an agent that answers anything.

Must not reach any other machine.
"""
