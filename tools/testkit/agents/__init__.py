"""Agents in processes of their own, their keys, and what runs in them. Must not know a gateway."""
