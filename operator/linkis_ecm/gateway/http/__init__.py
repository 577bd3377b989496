"""HTTP as such: Linkis's envelope, refusals, validation, ranges, compression, bounds. Must not know engines."""
