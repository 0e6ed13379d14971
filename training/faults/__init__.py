"""Faults injected into training on purpose."""
