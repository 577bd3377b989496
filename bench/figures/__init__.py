"""What a benchmark reports: figures, each in one form, and the table that prints and keeps them. Must not measure."""
