"""Runs TorchServe: typed settings become its files, a supervisor starts, watches and drains it, and clients send photos."""
