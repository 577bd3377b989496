"""What the operator process knows between passes: cached API objects and its memory of engines. Must not write."""
