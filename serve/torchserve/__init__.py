"""TorchServe from outside: the files it reads, its management API and its logs."""
