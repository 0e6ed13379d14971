"""Typed errors: each has a stable code for programs, a status for HTTP and a message for the person who gets it."""

from __future__ import annotations

from typing import ClassVar


class UnmaskError(Exception):
    """A failure that a user can act on.

    `code` is stable across releases and safe to match on, `status` is the HTTP status a server answers with,
    and `message` says what is wrong and what would be accepted. A message never holds a server-side path.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(UnmaskError):
    """A command was called with arguments that can't work; commands exit with 2."""

    code = "usage"
    status = 400


class FileError(UnmaskError):
    """A file of ours is missing, unreadable, of a wrong format or not what its manifest says."""

    code = "bad_file"
    status = 500


class ModelOutputError(UnmaskError):
    """The model ran and gave a score that is not a finite number."""

    code = "model_output_error"
    status = 500


class ImageError(UnmaskError):
    """The bytes that were sent are not a photo this detector can judge."""

    code = "invalid_image"
    status = 422


class EmptyImage(ImageError):
    """No bytes at all."""

    code = "empty_image"
    status = 400


class UnsupportedFormat(ImageError):
    """Neither JPEG, PNG nor WebP; the message names what it is when that can be told."""

    code = "unsupported_format"
    status = 415


class ImageTooLarge(ImageError):
    """The header promises more pixels than the spec allows; nothing was decoded."""

    code = "image_too_large"
    status = 413


class BodyTooLarge(ImageError):
    """The encoded file is larger than the server accepts."""

    code = "body_too_large"
    status = 413


class ZeroSizedImage(ImageError):
    """A width or a height of zero."""

    code = "zero_sized_image"
    status = 422


class TruncatedImage(ImageError):
    """The file ends before the picture does."""

    code = "truncated_image"
    status = 422


class CorruptImage(ImageError):
    """The format is right and the content can't be decoded."""

    code = "corrupt_image"
    status = 422
