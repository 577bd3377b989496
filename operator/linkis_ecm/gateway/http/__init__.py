"""HTTP in general: Linkis's envelope, refusals, validation, ranges, compression, limits. Must not know engines."""
