"""Ray Serve and ONNX Runtime, with batching: `MODEL=artifacts/model.onnx python -m benchmarks.peers.ray_app --port 8000`.

As Ray Serve's manual has it: a replica for each CPU, `serve.batch`, and RAY_SERVE_THROUGHPUT_OPTIMIZED. Batches are as large
as ours, and wait a millisecond to fill. A replica may hold more requests than its default of 5, so that batches can fill.
"""

import argparse
import os
import time
from typing import Any

os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")  # read when ray.serve is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from detector import ImageError, decode_image
from detector.cpus import available_cpus
from detector.scorer import Scorer
from detector.verdict import Verdict, error_body

BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "8"))
BATCH_TIMEOUT = 1e-3  # seconds


class Detector:
    """The scorer behind a deployment."""

    def __init__(self, model: str) -> None:
        self.scorer = Scorer(model, threads=1)

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=BATCH_TIMEOUT)
    async def predict(self, images: list[Any]) -> list[Verdict]:
        """A batch of pixels to verdicts."""
        return self.scorer.score_images(images)

    async def __call__(self, request: Request) -> JSONResponse:
        """One photo's verdict; the whole body is the photo, and what is none is refused with its status."""
        try:
            image = decode_image(await request.body(), self.scorer.manifest.image_spec)
        except ImageError as error:
            return JSONResponse(error_body(error), error.status)
        verdict = await self.predict(image)  # the decorator makes single calls of it
        return JSONResponse(verdict.to_dict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    # One CPU more than there are, for the proxy's and the controller's bookkeeping: replicas reserve one each.
    ray.init(num_cpus=available_cpus() + 1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": parser.parse_args().port})
    deployment = serve.deployment(
        Detector, num_replicas=available_cpus(), max_ongoing_requests=64, ray_actor_options={"num_cpus": 1}
    )
    serve.run(deployment.bind(os.environ["MODEL"]), route_prefix="/predictions/detector")
    while True:  # until TERM, for which Ray has a handler that shuts it down
        time.sleep(60)
