"""Linkis's own REST under /linkisManager, so that its console and SDK work against this gateway unchanged."""
