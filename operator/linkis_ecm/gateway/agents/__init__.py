"""The gateway's calls to engines' agents. Must not know what a method does with the answer."""
