"""The handler's core, free of any transport: requests in, one answer for each, in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.decode import ACCEPTED_FORMATS, decode_image
from detector.errors import BodyTooLarge, ImageError, UnmaskError
from detector.verdict import Verdict, error_body
from handlers.engine import Engine, Scores
from handlers.metrics import Metrics, NoMetrics, timed

MAX_BODY_BYTES = 16 * 2**20
IMAGE_KEYS = ("data", "body")
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
log = logging.getLogger("unmask")


class MissingImage(ImageError):
    """The request carries no photo where one is looked for."""

    code = "missing_image"
    status = 400


class BadParameter(UnmaskError):
    """A parameter has a value that means nothing."""

    code = "bad_parameter"
    status = 400


class InternalError(UnmaskError):
    """Something of ours broke; the cause is in the log, never in the answer."""

    def __init__(self) -> None:
        super().__init__("the server failed on this request; its log has the cause under the request id")


@dataclass(frozen=True)
class Item:
    """One request, whichever way it came: its named inputs and its id.

    inputs: the photo's bytes as `data` (multipart, gRPC) or `body` (the raw HTTP body), and optionally `use_calib`.
    """

    inputs: Mapping[str, Any]
    request_id: str | None = None


@dataclass(frozen=True)
class Answer:
    """The HTTP status and the JSON body for one request."""

    status: int
    body: dict[str, Any]


class Core:
    """Photos to verdicts. A request that can't be answered fails alone, with its own status and code; nothing is raised."""

    def __init__(self, engine: Engine, metrics: Metrics | None = None, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._engine = engine
        self._metrics = metrics or NoMetrics()
        self._max_body_bytes = max_body_bytes

    def warm_up(self, batch_size: int) -> None:
        """Decode and score grey photos, one and a full batch, so that the first request is as quick as the rest."""
        spec = self._engine.manifest.image_spec
        # Pillow imports a format's plug-in, and libjpeg and libwebp are loaded, when the first file of that format comes.
        photos = [decode_image(_grey(name, 2 * spec.size), spec) for name in ACCEPTED_FORMATS]
        for size in sorted({1, batch_size}):
            for _ in range(2):
                self._engine.run(np.stack([photos[i % len(photos)] for i in range(size)]))

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """One answer for each request of a batch, in order."""
        start = time.perf_counter()
        self._metrics.in_progress(len(items))
        ready: list[tuple[int, NDArray[np.uint8], bool]] = []
        answers: dict[int, Answer] = {}
        for index, item in enumerate(items):
            try:
                use_calibrator = _switch(item.inputs, "use_calib", default=True)
                with timed(self._metrics, "decode"):
                    ready.append((index, self._decode(item), use_calibrator))
            except Exception as error:
                answers[index] = self._failure(error, item)
        answers |= self._score(items, ready)
        self._metrics.batch(len(items), time.perf_counter() - start)
        self._metrics.in_progress(0)
        return [answers[index] for index in range(len(items))]

    def _decode(self, item: Item) -> NDArray[np.uint8]:
        data = _photo(item.inputs)
        if len(data) > self._max_body_bytes:
            raise BodyTooLarge(f"the photo has {len(data)} bytes; at most {self._max_body_bytes} are accepted")
        return decode_image(data, self._engine.manifest.image_spec)

    def _score(self, items: Sequence[Item], ready: list[tuple[int, NDArray[np.uint8], bool]]) -> dict[int, Answer]:
        if not ready:
            return {}
        try:
            with timed(self._metrics, "inference"):
                scores = self._engine.run(np.stack([photo for _, photo, _ in ready]))
        except Exception as error:  # a runtime out of memory, a lost device: this batch fails, the worker lives
            return {index: self._failure(error, items[index]) for index, _, _ in ready}
        answers = {}
        with timed(self._metrics, "postprocess"):
            for row, (index, _, use_calibrator) in enumerate(ready):
                try:
                    answers[index] = self._verdict(scores, row, use_calibrator, items[index])
                except Exception as error:
                    answers[index] = self._failure(error, items[index])
        return answers

    def _verdict(self, scores: Scores, row: int, use_calibrator: bool, item: Item) -> Answer:
        verdict = Verdict.from_scores(
            logit=float(scores.logit[row]),
            raw_prob=float(scores.raw_prob[row]),
            calibrated_prob=float(scores.calibrated_prob[row]),
            threshold=self._engine.manifest.threshold,
            model=self._engine.manifest.model,
            model_device=self._engine.device,
            use_calibrator=use_calibrator,
            request_id=item.request_id,
        )
        self._metrics.verdict(verdict.prediction)
        return Answer(200, verdict.to_dict())

    def _failure(self, error: Exception, item: Item) -> Answer:
        if not isinstance(error, UnmaskError):
            log.error("request %s failed", item.request_id, exc_info=error)
            error = InternalError()
        elif error.status >= 500:
            log.error("request %s: %s [%s]", item.request_id, error.message, error.code)
        self._metrics.error(error.code)
        return Answer(error.status, error_body(error, item.request_id))


def _grey(image_format: str, size: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(out, image_format)
    return out.getvalue()


def _photo(inputs: Mapping[str, Any]) -> bytes | bytearray:
    value = next((inputs[key] for key in IMAGE_KEYS if key in inputs), None)
    if isinstance(value, str):  # a TorchServe with decode_input_request on has made text of a text body
        return value.encode()
    if isinstance(value, (bytes, bytearray)):
        return value
    raise MissingImage(
        "no photo was sent; send its bytes as the whole body (curl -T photo.jpg URL, or --data-binary with "
        "-H 'Content-Type: image/jpeg'), as the multipart field data, or over gRPC under the key data"
    )


def _switch(inputs: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = inputs.get(key)
    if value is None:
        return default
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)
    if (found := _SWITCH.get(text.strip().lower())) is None:
        raise BadParameter(f"{key} is {text[:40]!r}; 1 and 0 are accepted")
    return found
