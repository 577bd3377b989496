"""Formats that agent, kernel, gateway and archive share: names, log pages, cells, result files. The only part of the
agent that others may import. Must not import anything of the agent's."""
