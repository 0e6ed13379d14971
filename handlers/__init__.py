"""The TorchServe handler: photos in, verdicts out. Everything but `service` works without TorchServe."""
