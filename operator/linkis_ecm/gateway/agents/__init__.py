"""The gateway's calls to agents. Must not know what a method does with the answer."""
