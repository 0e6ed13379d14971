"""How good a detector is: metrics, mistakes, robustness."""
