"""The REST as both its ends see it: paths and models. Must not import the client, the gateway or anything below them
but `model`."""
