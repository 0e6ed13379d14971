"""A request from TorchServe to its photos, and verdicts back to an answer, whatever form it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detector.errors import BodyTooLarge
from detector.verdict import ModelIdentity
from detector.worker_settings import WorkerSettings
from handlers.errors import BadParameter, BadRequest, ClientClosedRequest, MissingImage, UrlNotAccepted
from handlers.forms import FORMS, KSERVE_V2, SINGLE
from handlers.forms.base import Body, Content, Data, Item, Request
from handlers.identity import valid_request_id, valid_traceparent

MAX_BODY_BYTES, MAX_PHOTOS = WorkerSettings.max_body_bytes, WorkerSettings.max_photos
_NUMBERED = re.compile(r"data(\d{1,9})")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_EXAMPLES = " and ".join(form.example for form in FORMS if form.example)
_ACCEPTED = f"JSON requests are {_EXAMPLES}, with photos in base64"


@dataclass(frozen=True)
class Answer:
    """The HTTP status, the JSON body and the headers for one request."""

    status: int
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)


def read(item: Item, *, max_photos: int = MAX_PHOTOS, max_bytes: int = MAX_BODY_BYTES) -> Request:
    """The photos in a request and what is asked of them.

    Never raises: a request that can't be read has its error as its only photo, and is answered in its own form where that
    is known.
    """
    refused, parameters = Request((), KSERVE_V2 if item.tensors else SINGLE), item.inputs
    try:
        if item.closed:
            raise ClientClosedRequest
        content = _content(item.inputs, max_photos, max_bytes)
        form = next((form for form in FORMS if form.accepts(content)), None)
        if form is None:
            raise UrlNotAccepted if "url" in (content.document or {}) else BadRequest(_ACCEPTED)
        refused = form.refused(content) or refused
        request = form.read(content)
        parameters = {**request.parameters, **item.inputs}
        request = replace(
            request,
            use_calibrator=_switch(parameters, "use_calib", default=True),
            explain=_switch(parameters, "explain", default=item.explain or request.explain),
        )
    except Exception as error:
        request = replace(refused, photos=[error])
    return replace(
        request,
        request_id=item.request_id or valid_request_id(parameters.get("request_id")) or item.job,
        trace=item.trace or valid_traceparent(parameters.get("traceparent")),
    )


def answer(request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Answer:
    """One answer, from a verdict's JSON or its failing form for each of a request's photos.

    Over HTTP it is a success when any photo has a verdict, and otherwise has the first one's status.
    """
    status = 200 if any(body["ok"] for body in bodies) else bodies[0]["status"]
    headers = {"x-request-id": request.request_id, "traceparent": request.trace}
    sent = {name: value for name, value in headers.items() if value}
    return Answer(status, request.form.body(request, item, bodies, model), sent)


def _content(inputs: Mapping[str, Any], max_photos: int, max_bytes: int) -> Content:
    """The multipart fields and gRPC inputs by their numbers, or the one there is."""
    numbered = sorted((int(found[1]), key) for key in inputs if (found := _NUMBERED.fullmatch(key)))
    keys = [key for _, key in numbered] or [key for key in ("data", "body") if key in inputs][:1]
    # A TorchServe with decode_input_request on makes text of a text body.
    fields = [value.encode() if isinstance(value := inputs[key], str) else value for key in keys]
    if not fields or not all(isinstance(each, (bytes, bytearray)) for each in fields):
        raise MissingImage(
            "no photo was sent; send its bytes as the whole body (curl -T photo.jpg URL, or --data-binary with "
            "-H 'Content-Type: image/jpeg'), as the multipart field data, over gRPC under the key data, or in JSON"
        )
    if (size := sum(len(each) for each in fields)) > max_bytes:
        raise BodyTooLarge(f"the request has {size} bytes; at most {max_bytes} are accepted")
    return Content(fields, bool(numbered), None if numbered else _document(fields[0]), max_photos)


def _document(data: Data) -> dict[str, Any] | None:
    """The JSON object in a body that begins like one, whatever its declared type; no image file begins so."""
    if not _JSON.match(data):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(f"the body begins like JSON and is not valid JSON{where}. {_ACCEPTED}") from None
    assert isinstance(document, dict)  # it begins with a brace
    return document


def _switch(parameters: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key)
    if value is None:
        return default
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)
    if (found := _SWITCH.get(text.strip().lower())) is None:
        raise BadParameter(f"{key} is {text[:40]!r}; 1 and 0 are accepted")
    return found
