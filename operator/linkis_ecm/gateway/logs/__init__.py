"""Where a log is read: at the live agent or in the archive. Must not know who may read it."""
