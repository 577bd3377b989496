"""An engine's life: how it starts, what it may take, what it finds in its pod, how it ends."""
