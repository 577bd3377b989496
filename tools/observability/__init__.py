"""Alerts and dashboards as code, and the Prometheus that checks them."""
