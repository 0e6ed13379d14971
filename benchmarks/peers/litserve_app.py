"""LitServe and ONNX Runtime, with batching: `MODEL=artifacts/model.onnx python -m benchmarks.peers.litserve_app --port 8000`.

As LitServe's manual has it: one worker for each CPU, `fast_queue` above a hundred requests a second, and as many API servers
as workers (its default). Batches are as large as ours, and wait a millisecond to fill.
"""

import argparse
import os
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body, HTTPException
from numpy.typing import NDArray

from detector import ImageError, decode_image
from detector.cpus import available_cpus
from detector.scorer import Scorer
from detector.verdict import Verdict, error_body

BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "8"))
BATCH_TIMEOUT = 1e-3  # seconds
Pixels = NDArray[np.uint8]
Photo = Annotated[bytes, Body(media_type="application/octet-stream")]  # the annotation says what a request's body is


class Detector(litserve.LitAPI):
    """The scorer behind LitServe's hooks."""

    def setup(self, device: str) -> None:
        """Load the model, once in each worker."""
        self.scorer = Scorer(os.environ["MODEL"], threads=1)

    def decode_request(self, request: Photo) -> Pixels:
        """A photo to pixels; what is none is refused with its status."""
        try:
            return decode_image(request, self.scorer.manifest.image_spec)
        except ImageError as error:
            raise HTTPException(error.status, error_body(error)) from None

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        """As they are: the scorer stacks them."""
        return inputs

    def predict(self, x: list[Pixels]) -> list[Verdict]:
        """A batch of pixels to verdicts."""
        return self.scorer.score_images(x)

    def encode_response(self, output: Verdict) -> dict[str, Any]:
        """A verdict to JSON."""
        return output.to_dict()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    api = Detector(BATCH_SIZE, BATCH_TIMEOUT, "/predictions/detector")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=available_cpus(), fast_queue=True)
    server.run("127.0.0.1", parser.parse_args().port, log_level="warning", generate_client_file=False)
