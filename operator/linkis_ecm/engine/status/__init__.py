"""What others see of an engine: its status, its conditions, its database record. Pure. Must not choose the state."""
