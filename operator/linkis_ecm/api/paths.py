"""The paths of the REST, for the gateway that serves them and for the client that calls them."""

# Linkis's own prefix: its Message names a method by what stands behind it.
PREFIX = "/api/rest_j/v1"
# Ours; Linkis's own calls stand under {PREFIX}/linkisManager.
BASE = f"{PREFIX}/engineconnManager"
