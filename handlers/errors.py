"""What a request is refused for before its photo is decoded, and what the server itself fails with."""

from __future__ import annotations

from collections.abc import Iterator

from detector.errors import ImageError, ModelOutputError, UnmaskError


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


class ClientClosedRequest(UnmaskError):
    """The client left while its request waited; nothing was decoded or scored, and nobody reads this answer."""

    code = "client_closed_request"
    status = 499

    def __init__(self) -> None:
        super().__init__("the client closed the request before a worker had it")


def answered_errors() -> list[type[UnmaskError]]:
    """All errors that an answer of the handler can have, by status and code."""

    def below(kind: type[UnmaskError]) -> Iterator[type[UnmaskError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    def answered(kind: type[UnmaskError]) -> bool:
        photo = kind.__module__ == ImageError.__module__ and issubclass(kind, ImageError) and kind is not ImageError
        return photo or kind is ModelOutputError or kind.__module__ == __name__

    return sorted({kind for kind in below(UnmaskError) if answered(kind)}, key=lambda kind: (kind.status, kind.code))
