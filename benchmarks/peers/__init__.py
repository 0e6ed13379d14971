"""Other ways to serve the same model with the same decoder and the same answers, each as its own manual advises."""

PEERS = {"fastapi": ("fastapi", "uvicorn"), "litserve": ("litserve",)}  # each with the packages that it needs
