"""What developers run: the cluster tool, the checks, the renderers, and what tests, e2e and bench share."""
