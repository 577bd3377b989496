"""The rules that `decide` lists in its order. Each answers an Outcome or None. Must not import `decide`."""
