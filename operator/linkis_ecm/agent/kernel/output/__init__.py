"""What leaves the kernel: its streams, the bounds of its messages, their journal. Runs in the kernel."""
