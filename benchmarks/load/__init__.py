"""Load on a server: the load generators, and the check of every answer."""
