"""Errors, each with a stable code for programs, an HTTP status and a message for people."""

from __future__ import annotations

from typing import ClassVar


class UnmaskError(Exception):
    """A failure that a user can act on.

    code: stable across releases, for programs to compare with. status: the HTTP status that a server answers with.
    message: what is wrong and what is accepted; in an answer to a client it names no path of the server.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(UnmaskError):
    """A command has arguments that can't work; it exits with 2."""

    code = "usage"
    status = 400


class FileError(UnmaskError):
    """A file is missing, unreadable, of a wrong format or not what its manifest says."""

    code = "bad_file"
    status = 500


class ModelOutputError(UnmaskError):
    """The model ran and gave a score that is not a finite number."""

    code = "model_output_error"
    status = 500


class ImageError(UnmaskError):
    """The bytes are not a photo that can be scored; base of the errors that say why."""

    code = "invalid_image"
    status = 422


class EmptyImage(ImageError):
    """The image has no bytes."""

    code = "empty_image"
    status = 400


class UnsupportedFormat(ImageError):
    """The image is of a format or kind that is not read; the message names it when it is known, and what is accepted."""

    code = "unsupported_format"
    status = 415


class ImageTooLarge(ImageError):
    """The photo has more pixels, or takes more memory to decode, than is allowed; the header tells, and nothing is decoded."""

    code = "image_too_large"
    status = 413


class BodyTooLarge(ImageError):
    """The encoded file is larger than the server accepts."""

    code = "body_too_large"
    status = 413


class ZeroSizedImage(ImageError):
    """The width or the height is zero."""

    code = "zero_sized_image"
    status = 422


class ImageTooSmall(ImageError):
    """A side of the photo is shorter than 32 pixels: too little to judge."""

    code = "image_too_small"
    status = 422


class UniformImage(ImageError):
    """Every pixel that the model would see has the same colour: there is no picture to judge."""

    code = "image_uniform"
    status = 422


class TruncatedImage(ImageError):
    """The file ends before the picture does."""

    code = "truncated_image"
    status = 422


class CorruptImage(ImageError):
    """The format is accepted and the content can't be decoded."""

    code = "corrupt_image"
    status = 422
