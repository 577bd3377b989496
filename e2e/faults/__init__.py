"""Whatever dies or is refused on the real node: what is lost, how it ends, how long until all is right again."""
