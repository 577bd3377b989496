"""What each of our server processes is built with: back-off, one registry of metrics, settings from the environment.

Imports the model alone; must not know operator or gateway.
"""
