"""Decode encoded photos to the pixels that a model sees; training, export, serving and benchmarks all use this."""

from detector.decode.image import ACCEPTED_FORMATS, decode_image

__all__ = ["ACCEPTED_FORMATS", "decode_image"]
