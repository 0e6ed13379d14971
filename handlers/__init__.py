"""The TorchServe handler: bytes in, verdict out. Everything but `service` works without TorchServe."""
