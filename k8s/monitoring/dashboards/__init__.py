"""Grafana's dashboards as code, with Grafana's foundation SDK: a module for each. `make dashboards` writes their JSON."""
