"""The forms a request can have: a photo's bytes, several in a form, or JSON as KServe's protocols v1 and v2 have it."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from detector.errors import BodyTooLarge, ImageError, UnmaskError
from detector.worker_settings import WorkerSettings

MAX_BODY_BYTES, MAX_PHOTOS = WorkerSettings.max_body_bytes, WorkerSettings.max_photos
VERDICT_OUTPUTS = ("prediction", "logit", "raw_prob", "calibrated", "confidence", "status", "error_code", "error_message")
EXPLANATION_OUTPUTS = ("heatmap", "overlay_png")
Data = bytes | bytearray
_NUMBERED = re.compile(r"data(\d{1,9})")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_URL = re.compile(r"\s*https?://", re.IGNORECASE)
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_ACCEPTED = (
    'JSON requests are {"instances": [{"b64": "…"}, …]} and {"inputs": [{"name": "images", "shape": [n], '
    '"datatype": "BYTES", "data": ["…", …]}]}, with photos in base64'
)


class MissingImage(ImageError):
    """The request carries no photo where one is looked for."""

    code = "missing_image"
    status = 400


class BadParameter(UnmaskError):
    """A parameter has a value that means nothing."""

    code = "bad_parameter"
    status = 400


class BadRequest(UnmaskError):
    """JSON that is broken, or of no known form."""

    code = "bad_request"
    status = 400


class InvalidBase64(ImageError):
    """Text that should be a photo in base64, and isn't."""

    code = "invalid_base64"
    status = 400


class UrlNotAccepted(UnmaskError):
    """A photo's address was sent in place of the photo; the server fetches nothing."""

    code = "url_not_accepted"
    status = 400

    def __init__(self) -> None:
        super().__init__('photos are not fetched from URLs; send the bytes, or in JSON {"b64": "…"} with the bytes in base64')


class TooManyPhotos(UnmaskError):
    """More photos in one request than the server takes."""

    code = "too_many_photos"
    status = 413


@dataclass(frozen=True)
class Item:
    """One request as it came.

    inputs: `body`, the raw HTTP body; multipart fields or gRPC inputs, of which `data` is a photo, or `data1`, `data2`, …
    are several; `use_calib` and `explain`. explain: whether the path asks for it. tensors: whether TorchServe makes gRPC
    of the answer (KServe v2), which ends the worker when the answer has not that form. trace: a valid W3C traceparent.
    """

    inputs: Mapping[str, Any]
    request_id: str | None = None
    explain: bool = False
    tensors: bool = False
    trace: str | None = None


class Form(Enum):
    """What the answer looks like: one verdict, `predictions` (KServe v1), or `outputs` (KServe v2)."""

    ONE = auto()
    LIST = auto()
    TENSORS = auto()


@dataclass(frozen=True)
class Request:
    """A request that was read. photos: bytes, or the error in the place of what is no photo.

    id: the caller's own, in KServe v2. outputs: names of those that are wanted there; none is all.
    """

    photos: Sequence[Data | Exception]
    form: Form = Form.ONE
    use_calibrator: bool = True
    explain: bool = False
    id: str | None = None
    outputs: tuple[str, ...] = ()


def read(item: Item, *, max_photos: int = MAX_PHOTOS, max_bytes: int = MAX_BODY_BYTES) -> Request:
    """The photos in a request and what is asked of them. Never raises: a request that can't be read has its error as
    its only photo, and is answered in its own form as far as that could be told."""
    refused = Request([], Form.TENSORS if item.tensors else Form.ONE)
    try:
        fields, form = _fields(item.inputs)
        if (size := sum(len(field) for field in fields)) > max_bytes:
            raise BodyTooLarge(f"the request has {size} bytes; at most {max_bytes} are accepted")
        document = _document(fields[0]) if form is Form.ONE else None
        if document is None:
            _check_count(fields, max_photos)
            request = Request(fields, form)
        elif "instances" in document:
            request = Request(_instances(document["instances"], max_photos), Form.LIST)
        elif "inputs" in document:
            own_id = document.get("id")
            refused = Request([], Form.TENSORS, id=own_id if isinstance(own_id, str) else None)
            request = replace(
                refused, photos=_images(document["inputs"], max_photos), outputs=_outputs(document.get("outputs"))
            )
        else:
            raise UrlNotAccepted if "url" in document else BadRequest(_ACCEPTED)
        switches = {**_parameters(document), **item.inputs}
        return replace(
            request,
            use_calibrator=_switch(switches, "use_calib", default=True),
            explain=_switch(
                switches, "explain", default=item.explain or not {*EXPLANATION_OUTPUTS}.isdisjoint(request.outputs)
            ),
        )
    except Exception as error:
        return replace(refused, photos=[error])


def _fields(inputs: Mapping[str, Any]) -> tuple[list[Data], Form]:
    """The photos among multipart fields and gRPC inputs by their numbers, or the one there is."""
    numbered = sorted((int(found[1]), key) for key in inputs if (found := _NUMBERED.fullmatch(key)))
    keys = [key for _, key in numbered] or [key for key in ("data", "body") if key in inputs][:1]
    # A TorchServe with decode_input_request on has made text of a text body.
    fields = [value.encode() if isinstance(value := inputs[key], str) else value for key in keys]
    if not fields or not all(isinstance(field, (bytes, bytearray)) for field in fields):
        raise MissingImage(
            "no photo was sent; send its bytes as the whole body (curl -T photo.jpg URL, or --data-binary with "
            "-H 'Content-Type: image/jpeg'), as the multipart field data, over gRPC under the key data, or in JSON"
        )
    return fields, Form.LIST if numbered else Form.ONE


def _document(data: Data) -> dict[str, Any] | None:
    """The JSON object in a body that begins like one, whatever it was declared to be; no image file begins so."""
    if not _JSON.match(data):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(f"the body begins like JSON and is none{where}. {_ACCEPTED}") from None
    assert isinstance(document, dict)  # it begins with a brace
    return document


def _check_count(photos: Sequence[Any], max_photos: int) -> None:
    if len(photos) > max_photos:
        raise TooManyPhotos(f"the request has {len(photos)} photos; at most {max_photos} are accepted at once")


def _instances(instances: Any, max_photos: int) -> list[Data | Exception]:
    """Photos of KServe v1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol."""
    if not isinstance(instances, list) or not instances:
        raise BadRequest(f"instances must be a list of at least one photo. {_ACCEPTED}")
    _check_count(instances, max_photos)
    photos: list[Data | Exception] = []
    for instance in instances:
        if isinstance(instance, dict) and "url" in instance:
            photos.append(UrlNotAccepted())
            continue
        text = instance.get("b64", instance.get("data")) if isinstance(instance, dict) else instance
        photos.append(_decoded(text))
    return photos


def _images(inputs: Any, max_photos: int) -> list[Data | Exception]:
    """Photos of KServe v2, the Open Inference Protocol: https://github.com/kserve/open-inference-protocol."""
    images = _tensors(inputs).get("images", {})
    data, shape = images.get("data"), images.get("shape")
    if images.get("datatype") != "BYTES" or not isinstance(data, list):
        raise BadRequest(f"inputs must hold a tensor images of datatype BYTES. {_ACCEPTED}")
    if not data:
        raise MissingImage(
            "the tensor images is empty; over gRPC send photos as contents.bytes_contents, raw_input_contents do not arrive"
        )
    if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape) or math.prod(shape) != len(data):
        raise BadRequest(f"the tensor images has {len(data)} photos; its shape must be [{len(data)}]")
    _check_count(data, max_photos)
    return [_decoded(text) for text in data]


def _outputs(outputs: Any) -> tuple[str, ...]:
    """Names of the outputs that KServe v2's caller wants."""
    if outputs is None:
        return ()
    known = (*VERDICT_OUTPUTS, *EXPLANATION_OUTPUTS)
    names = [output.get("name") for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
    if not names or any(name not in known for name in names):
        raise BadRequest(f'outputs is a list of {{"name": "…"}}; there are {", ".join(known)}')
    return tuple(str(name) for name in names)


def _parameters(document: Mapping[str, Any] | None) -> dict[str, Any]:
    """Switches in JSON: under parameters, or as KServe v2 tensors of one element, all that TorchServe lets through of gRPC."""
    if document is None:
        return {}
    parameters = document.get("parameters")
    tensors = {} if "instances" in document else _tensors(document["inputs"])
    flags = {key: tensor["data"] for key, tensor in tensors.items() if isinstance(tensor.get("data"), list)}
    return {
        **(parameters if isinstance(parameters, dict) else {}),
        **{key: data[0] for key, data in flags.items() if key in ("use_calib", "explain") and data},
    }


def _tensors(inputs: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(inputs, list) or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in inputs):
        raise BadRequest(f"inputs must be a list of tensors with names. {_ACCEPTED}")
    return {tensor["name"]: tensor for tensor in inputs}


def _decoded(text: Any) -> Data | Exception:
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


def _switch(inputs: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = inputs.get(key)
    if value is None:
        return default
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)
    if (found := _SWITCH.get(text.strip().lower())) is None:
        raise BadParameter(f"{key} is {text[:40]!r}; 1 and 0 are accepted")
    return found
