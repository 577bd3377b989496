"""The work loop: queue, workers, deadlines, calls beside the loop. Must not know a kind of object."""
