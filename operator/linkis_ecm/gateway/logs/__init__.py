"""Reading logs, from the live agent or from the archive. Must not know who may read them."""
