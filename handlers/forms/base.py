"""What a form of request is: it accepts a request or not, reads its photos, and writes the answer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detector.verdict import ModelIdentity
from handlers.errors import InvalidBase64, TooManyPhotos, UrlNotAccepted

Data = bytes | bytearray
Body = dict[str, Any]
_URL = re.compile(r"\s*https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One request as TorchServe passes it on.

    inputs: `body`, the raw HTTP body; or multipart fields or gRPC inputs, of which `data` is a photo, or `data1`, `data2`,
    … are several; `use_calib` and `explain`; `request_id` and `traceparent`. job: TorchServe's own id of it. explain:
    whether the path asks for it. tensors: whether TorchServe makes gRPC of the answer (KServe v2), which ends the worker
    when the answer does not have that form. request_id, trace: valid ones of HTTP's headers. closed: whether its client has
    left. queued: when it came to the frontend, in nanoseconds of the monotonic clock; depth: requests that waited then.
    """

    inputs: Mapping[str, Any]
    job: str | None = None
    explain: bool = False
    tensors: bool = False
    request_id: str | None = None
    trace: str | None = None
    closed: bool = False
    queued: int | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Content:
    """What a request holds. fields: its photos' bytes, or one JSON document. numbered: whether they are `data1`, `data2`, …
    document: the JSON object in the only field, where it is one. max_photos: the most photos that are accepted."""

    fields: Sequence[Data]
    numbered: bool = False
    document: Mapping[str, Any] | None = None
    max_photos: int = 32


@dataclass(frozen=True)
class Request:
    """A request that was read. photos: bytes, or the error in place of what is no photo.

    form: the one that answers it. parameters: `use_calib` and `explain` as they were sent. explain: whether the request
    asks for it in another way. id: the caller's own, in KServe v2. outputs: names of those wanted there; none is all.
    request_id: the client's, or else TorchServe's. trace: the client's W3C traceparent.
    """

    photos: Sequence[Data | Exception]
    form: Form
    parameters: Mapping[str, Any] = field(default_factory=dict)
    use_calibrator: bool = True
    explain: bool = False
    id: str | None = None
    outputs: tuple[str, ...] = ()
    request_id: str | None = None
    trace: str | None = None


class Form(ABC):
    """One form of request, and of its answer.

    example: of its JSON, where it is JSON, for those who send another. protocol: KServe's v1 or v2, where it is of one.
    """

    example = ""
    protocol = ""

    @abstractmethod
    def accepts(self, content: Content) -> bool:
        """Whether a request has this form."""

    @abstractmethod
    def read(self, content: Content) -> Request:
        """The photos and the parameters. Raises `UnmaskError` when the whole request can't be read."""

    @abstractmethod
    def body(self, request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Body:
        """The answer's JSON, from a verdict's JSON or its failing form for each photo."""

    def refused(self, content: Content) -> Request | None:
        """What to answer when `read` raises, without photos; None answers as for a single photo."""
        return None


def check_count(photos: Sequence[Any], content: Content) -> None:
    """Raises `TooManyPhotos`."""
    if len(photos) > content.max_photos:
        raise TooManyPhotos(f"the request has {len(photos)} photos; at most {content.max_photos} are accepted at once")


def decoded(text: Any) -> Data | Exception:
    """A photo's bytes out of base64 (RFC 4648, section 4; line breaks are passed over), or what is wrong with it."""
    if not isinstance(text, str):
        return InvalidBase64('a photo in JSON is {"b64": "…"}, {"data": "…"} or "…", with its bytes in base64')
    if _URL.match(text):
        return UrlNotAccepted()
    try:
        return b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError:
        return InvalidBase64(
            "a photo is not valid base64; the standard alphabet is accepted, with padding and no data: prefix"
        )


def parameters_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The object under `parameters` in JSON."""
    parameters = document.get("parameters")
    return parameters if isinstance(parameters, dict) else {}
