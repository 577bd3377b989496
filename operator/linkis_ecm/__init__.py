"""linkis-ecm: Apache Linkis's Engine Connection Manager as a Kubernetes operator.

Kept empty on purpose: the agent imports this package in every engine pod, and what is imported here is paid
there at each engine's start.
"""

__version__ = "0.1.0"
