"""A real cluster: installing the chart, kubectl, and what is seen there. Must not start the cluster itself."""
