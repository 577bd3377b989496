"""The client of the agents' HTTP API, for gateway and operator. Must not know engines, callers or Linkis."""
