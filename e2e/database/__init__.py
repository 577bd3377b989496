"""The chart in its grown-up form, over a MariaDB: operator and gateway apart, two of each."""
