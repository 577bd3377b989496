"""A real browser, and the console in it. Must not start the gateway that it looks at."""
