"""Decode encoded photos to the pixels that a model sees; training, export, serving and benchmarks all use this."""

from detector.decode.image import ACCEPTED_FORMATS, DecodedPhoto, decode_image, decode_photo, open_photo

__all__ = ["ACCEPTED_FORMATS", "DecodedPhoto", "decode_image", "decode_photo", "open_photo"]
