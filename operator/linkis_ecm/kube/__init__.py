"""The one package that talks to the Kubernetes API: client, list+watch, lease, events. Decides nothing about engines.

`errors`, `resources` and `retry` are cheap to import; `client` loads the kubernetes package (about 0.6 s of CPU).
"""
