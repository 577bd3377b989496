"""The gateway: Linkis's REST over the engines. Stateless; must not import SQLAlchemy, kopf or a Kubernetes client."""
