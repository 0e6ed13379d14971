"""The contract every stage shares: image spec, decoding, calibration curve, verdict, manifest.

Needs numpy and Pillow only; `detector.scorer` also needs onnxruntime, and is imported on its own.
"""

from detector.calibration import CalibrationCurve
from detector.decode import ACCEPTED_FORMATS, DecodedPhoto, decode_image, decode_photo
from detector.errors import (
    BodyTooLarge,
    CorruptImage,
    EmptyImage,
    FileError,
    ImageError,
    ImageTooLarge,
    ImageTooSmall,
    TruncatedImage,
    UniformImage,
    UnmaskError,
    UnsupportedFormat,
    UsageError,
    ZeroSizedImage,
)
from detector.manifest import Manifest, sha256
from detector.spec import ImageSpec
from detector.verdict import FAKE, REAL, UNCERTAIN, Band, ModelIdentity, Verdict, error_body

__all__ = [
    "ACCEPTED_FORMATS",
    "FAKE",
    "REAL",
    "UNCERTAIN",
    "Band",
    "BodyTooLarge",
    "CalibrationCurve",
    "CorruptImage",
    "DecodedPhoto",
    "EmptyImage",
    "FileError",
    "ImageError",
    "ImageSpec",
    "ImageTooLarge",
    "ImageTooSmall",
    "Manifest",
    "ModelIdentity",
    "TruncatedImage",
    "UniformImage",
    "UnmaskError",
    "UnsupportedFormat",
    "UsageError",
    "Verdict",
    "ZeroSizedImage",
    "decode_image",
    "decode_photo",
    "error_body",
    "sha256",
]
