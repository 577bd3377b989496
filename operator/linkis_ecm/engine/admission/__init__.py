"""What an engine may be before it has a pod: whose it is, its plugin, what it may override, the limits of people.

Operator and gateway ask the same rules. Pure. Must not import the decision or the pod builder.
"""
