"""The networks: built by name, their first weights, and their checkpoints."""
