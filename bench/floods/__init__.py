"""Attacks of docs/security/findings.md and their like against a loopback installation, measured one after the other.

Attackers run in a process of their own. Must not reach any other machine.
"""
