"""The rules that `decide` lists in order. Each returns an Outcome or None. Must not import `decide`."""
