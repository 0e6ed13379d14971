"""TorchServe, kept: typed settings rendered into its files, a supervisor that starts, watches and drains it, and a client."""
