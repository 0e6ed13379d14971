"""The handler's core, free of any transport: requests in, one answer for each, in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from detector.decode import DecodedPhoto, decode_image, decode_photo
from detector.errors import UnmaskError
from detector.verdict import error_body
from handlers.engine import Engine, Scores
from handlers.errors import InternalError
from handlers.explain import explanation
from handlers.forms.base import Body, Data, Item, Request
from handlers.requests import MAX_BODY_BYTES, MAX_PHOTOS, Answer, answer, read
from handlers.telemetry import Batch, Handled, Telemetry

_WARMED_UP = ("JPEG", "PNG", "WEBP")
log = logging.getLogger("unmask")


@dataclass(frozen=True)
class _Photo:
    """One decoded photo with the index of its request and its place there."""

    request: int
    place: int
    decoded: DecodedPhoto


class Core:
    """Turns photos into verdicts. A photo that fails has its own status and code and fails alone; nothing is raised.

    batch_size: the most photos in one run of the model. max_photos, max_body_bytes: the most that one request may have.
    max_pixels, max_jpeg_pixels: the most that one photo may have; 0 takes the bound of the model's image spec.
    """

    def __init__(
        self,
        engine: Engine,
        telemetry: Telemetry | None = None,
        *,
        batch_size: int = 8,
        max_photos: int = MAX_PHOTOS,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_pixels: int = 0,
        max_jpeg_pixels: int = 0,
    ) -> None:
        self._engine = engine
        self._telemetry = telemetry or Telemetry()
        self._spec = engine.manifest.image_spec.bounded(max_pixels=max_pixels, max_jpeg_pixels=max_jpeg_pixels)
        self._batch_size = batch_size
        self._max_photos, self._max_body_bytes = max_photos, max_body_bytes

    def warm_up(self) -> None:
        """Decode and score plain photos, one and a full batch, so that the first request is as quick as the rest."""
        # Pillow imports a format's plug-in, and libjpeg and libwebp are loaded, when the first file of that format comes.
        photos = [decode_image(_plain(name, 2 * self._spec.size), self._spec) for name in _WARMED_UP]
        for size in sorted({1, self._batch_size}):
            for _ in range(2):
                self._engine.run(np.stack([photos[i % len(photos)] for i in range(size)]))

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """One answer for each request of a batch, in order."""
        self._telemetry.progress(len(items))
        batch = Batch()
        with batch.stage("read"):
            requests = [read(item, max_photos=self._max_photos, max_bytes=self._max_body_bytes) for item in items]
        bodies: list[list[Body]] = [[{}] * len(request.photos) for request in requests]
        photos: list[_Photo] = []
        with batch.stage("decode"):
            for index, request in enumerate(requests):
                for place, photo in enumerate(request.photos):
                    try:
                        photos.append(_Photo(index, place, self._decode(photo)))
                    except Exception as error:
                        bodies[index][place] = _failure(error, request)
        for first in range(0, len(photos), self._batch_size):
            run = photos[first : first + self._batch_size]
            for scored, body in zip(run, self._score(run, requests, batch), strict=True):
                bodies[scored.request][scored.place] = body
        manifest = self._engine.manifest
        answers = [
            answer(request, item, found, manifest.model) for request, item, found in zip(requests, items, bodies, strict=True)
        ]
        handled = [Handled(*each) for each in zip(items, requests, bodies, answers, strict=True)]
        self._telemetry.answered(batch, handled, manifest.model.version)
        self._telemetry.progress(0)
        return answers

    def _decode(self, photo: Data | Exception) -> DecodedPhoto:
        if isinstance(photo, Exception):
            raise photo
        return decode_photo(photo, self._spec)

    def _score(self, photos: Sequence[_Photo], requests: Sequence[Request], batch: Batch) -> list[Body]:
        """What is found on each photo, from one run of the model."""
        try:
            with batch.stage("inference"):
                explain = any(requests[photo.request].explain for photo in photos)
                scores = self._engine.run(np.stack([photo.decoded.pixels for photo in photos]), heatmap=explain)
        except Exception as error:  # a runtime out of memory, a lost device: these photos fail, the worker lives
            return [_failure(error, requests[photo.request]) for photo in photos]
        batch.runs.append(len(photos))
        bodies = []
        with batch.stage("postprocess"):
            for row, photo in enumerate(photos):
                request = requests[photo.request]
                try:
                    bodies.append(self._verdict(scores, row, photo.decoded, request, batch))
                except Exception as error:
                    bodies.append(_failure(error, request))
        return bodies

    def _verdict(self, scores: Scores, row: int, photo: DecodedPhoto, request: Request, batch: Batch) -> Body:
        verdict = self._engine.manifest.verdict(
            scores.logit[row],
            scores.raw_prob[row],
            scores.calibrated_prob[row],
            device=self._engine.device,
            use_calibrator=request.use_calibrator,
            cropped=photo.cropped,
            request_id=request.request_id,
        )
        body = verdict.to_dict()
        if request.explain and scores.heatmap is not None:
            with batch.stage("explain", within="postprocess"):
                body["explanation"] = explanation(photo.pixels, scores.heatmap[row])
        batch.scores.append(float(scores.calibrated_prob[row]))
        return body


def _failure(error: Exception, request: Request) -> Body:
    name = f"request {request.request_id}" + (f", traceparent {request.trace}" if request.trace else "")
    if not isinstance(error, UnmaskError):
        log.error("%s failed", name, exc_info=error)
        error = InternalError()
    elif error.status >= 500:
        log.error("%s: %s [%s]", name, error.message, error.code)
    return error_body(error, request.request_id)


def _plain(image_format: str, size: int) -> bytes:
    out = BytesIO()
    Image.linear_gradient("L").resize((size, size)).convert("RGB").save(out, image_format)
    return out.getvalue()
