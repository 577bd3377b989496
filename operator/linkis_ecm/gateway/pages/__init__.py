"""Pages for a browser and the files that they are made of."""
