"""Benchmarks of training: throughput beside timm's recipe, and the results page."""
