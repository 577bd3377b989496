"""Releases: what their images hold, a second one beside the first, and what outlives a reinstall."""
