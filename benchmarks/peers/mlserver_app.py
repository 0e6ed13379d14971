"""MLServer and ONNX Runtime: `MODEL=artifacts/model.onnx python -m benchmarks.peers.mlserver_app --folder scratch`.

As MLServer's manual has it: a custom runtime with a custom endpoint, and `parallel_workers`, one for each CPU, that run it.
Its adaptive batching is for requests of the V2 protocol alone, where a photo is base64 inside JSON.
"""

import argparse
import asyncio
import os
import socket
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler

from detector import ImageError
from detector.cpus import available_cpus
from detector.scorer import Scorer
from detector.verdict import error_body

Photo = Annotated[bytes, Body(media_type="application/octet-stream")]


class Detector(MLModel):
    """The scorer behind MLServer's runtime."""

    async def load(self) -> bool:
        """Load the model, once in each worker."""
        self.scorer = Scorer(os.environ["MODEL"], threads=1)
        return True

    @custom_handler(rest_path="/predictions/detector")
    async def score(self, photo: Photo) -> dict[str, Any]:
        """One photo's verdict; the whole body is the photo. What is none has its status in the body alone."""
        try:
            return self.scorer.score(photo).to_dict()
        except ImageError as error:
            return error_body(error)


async def serve(port: int, folder: Path) -> None:
    """Serve until TERM; `folder` is for MLServer's own files."""
    with (
        socket.socket() as one,
        socket.socket() as two,
    ):  # gRPC and metrics can't be turned off, and their usual ports may be taken
        for held in (one, two):
            held.bind(("127.0.0.1", 0))
        others = one.getsockname()[1], two.getsockname()[1]
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=others[0],
        metrics_port=others[1],
        metrics_endpoint=None,
        parallel_workers=available_cpus(),
        debug=False,
        environments_dir=str(folder / "environments"),
        metrics_dir=str(folder),
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="detector", implementation=Detector)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    # Workers import the runtime by the name of its module, which is not __main__ there.
    asyncio.run(import_module("benchmarks.peers.mlserver_app").serve(arguments.port, arguments.folder))
