"""Keys of agents that have enrolled, for tests that put an engine and its agent there without an operator."""

from __future__ import annotations

from linkis_ecm.model.agent_key import AgentKeyRef, Enrolment, agent_key, key_id

NONCE = "0123456789abcdef" * 2


def enrolment_of(uid: str, attempt: int = 0) -> Enrolment:
    """The enrolment of the agent in that engine's pod."""
    return Enrolment(f"pod-{uid}", uid, attempt, NONCE)


def agent_key_of(master: bytes, uid: str, attempt: int = 0) -> str:
    """The key that the agent got."""
    return agent_key(master, enrolment_of(uid, attempt))


def key_status(master: bytes, uid: str) -> dict[str, str]:
    """`status.agentKey` of that engine."""
    return AgentKeyRef(f"pod-{uid}", NONCE, key_id(master)).written()
