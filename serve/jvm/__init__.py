"""TorchServe's Java frontend: compiled classes read, changed and written."""
