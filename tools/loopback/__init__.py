"""A whole installation as processes on loopback: a cluster in memory, the real operator, gateway and agents.

For attacks and for their measurement. Must not know what it is used for, and listens for nobody but this machine.
"""
