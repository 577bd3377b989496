"""Grafana dashboards as code: what they show is data (`boards`), how Grafana wants it is `build`."""
