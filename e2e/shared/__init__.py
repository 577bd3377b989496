"""What the tests share on the cluster: engines, releases, and the parts that die. Must not be a test."""
