"""What a request is refused for before its photo is decoded, and what the server itself fails with."""

from __future__ import annotations

from detector.errors import ImageError, UnmaskError


class InternalError(UnmaskError):
    """The server failed; the cause is in the log, never in the answer."""

    code = "internal_error"
    status = 500

    def __init__(self) -> None:
        super().__init__("the server failed on this request; its log has the cause under the request id")


class MissingImage(ImageError):
    """The request has no photo where one is expected."""

    code = "missing_image"
    status = 400


class BadParameter(UnmaskError):
    """A parameter has a value that is not accepted."""

    code = "bad_parameter"
    status = 400


class BadRequest(UnmaskError):
    """The JSON is broken, or of no known form."""

    code = "bad_request"
    status = 400


class InvalidBase64(ImageError):
    """The text in place of a photo is not base64."""

    code = "invalid_base64"
    status = 400


class UrlNotAccepted(UnmaskError):
    """A photo's URL was sent in place of the photo; the server fetches nothing."""

    code = "url_not_accepted"
    status = 400

    def __init__(self) -> None:
        super().__init__('photos are not fetched from URLs; send the bytes, or in JSON {"b64": "…"} with the bytes in base64')


class TooManyPhotos(UnmaskError):
    """The request has more photos than the server accepts."""

    code = "too_many_photos"
    status = 413
