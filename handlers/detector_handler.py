"""The entry point that an archive names: TorchServe's loader wants exactly one class defined in this file."""

from handlers.service import Service


class DetectorHandler(Service):
    """The handler, as TorchServe finds it."""
