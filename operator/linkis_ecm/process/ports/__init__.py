"""What a process's listening ports take: the socket, which connections it keeps, how often who may, how a body comes.

Must not know what is served there.
"""
