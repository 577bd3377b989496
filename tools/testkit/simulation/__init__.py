"""A whole cluster in virtual time, on the fakes. Must not open a socket."""
