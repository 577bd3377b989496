"""The operator's side of the agents in engines' pods: their reports and files come in, requests to them go out."""
