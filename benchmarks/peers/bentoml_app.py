"""BentoML and ONNX Runtime, without batching: `MODEL=artifacts/model.onnx bentoml serve benchmarks.peers.bentoml_app`.

As BentoML's manual has it for CPUs: as many workers as CPUs, and a plain `def`, which runs on the worker's threads. Its
adaptive batching takes lists; single photos would need a second service in front, and each request a hop between the two.
"""

import os
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from detector import ImageError
from detector.scorer import Scorer
from detector.verdict import error_body

Photo = Annotated[bytes, ContentType("application/octet-stream")]


@bentoml.service(workers="cpu_count", threads=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Detector:
    """The scorer behind BentoML's service."""

    def __init__(self) -> None:
        self.scorer = Scorer(os.environ["MODEL"], threads=1)

    @bentoml.api(route="/predictions/detector")
    def predict(self, photo: Photo, /, ctx: bentoml.Context) -> dict[str, Any]:
        """One photo's verdict; the whole body is the photo, and what is none is refused with its status."""
        try:
            return self.scorer.score(photo).to_dict()
        except ImageError as error:
            ctx.response.status_code = error.status
            return error_body(error)
