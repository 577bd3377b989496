"""Tables as results of the kernel: shown, spilled to a file. Runs in the kernel; imports nothing on its own."""
