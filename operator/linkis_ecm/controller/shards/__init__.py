"""Who of several operators of one installation serves which namespace (docs/design/scale.md)."""
