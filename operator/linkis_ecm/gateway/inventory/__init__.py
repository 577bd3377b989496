"""What the gateway knows of engines and plugins, live and past. Must not call an agent or answer a request."""
