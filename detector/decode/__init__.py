"""Decode encoded photos to the pixels that a model sees; training, export, serving and benchmarks all use this."""

from detector.decode.image import DecodedPhoto, decode_image, decode_photo, whole_image
from detector.decode.opening import ACCEPTED_FORMATS, open_photo

__all__ = ["ACCEPTED_FORMATS", "DecodedPhoto", "decode_image", "decode_photo", "open_photo", "whole_image"]
