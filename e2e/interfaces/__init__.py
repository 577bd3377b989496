"""What people and programs meet: the API server's resources, the gateway, the console, metrics."""
