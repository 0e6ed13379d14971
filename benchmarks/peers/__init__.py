"""Other ways to serve the same model with the same decoder and the same answers, each as its own manual advises.

Each app runs in an environment of its own and imports `detector` and its framework alone, so nothing else is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A server to compare with. package: its distribution. command: a program of its environment and its arguments; {port},
    {workers} and {folder}, a scratch folder, are filled in. how: its settings, for people."""

    title: str
    package: str
    command: tuple[str, ...]
    how: str


PEERS = {
    "fastapi": Peer(
        "FastAPI, uvicorn",
        "fastapi",
        (
            "uvicorn",
            "benchmarks.peers.fastapi_app:app",
            "--port",
            "{port}",
            "--workers",
            "{workers}",
            "--log-level",
            "warning",
        ),
        "a process for each CPU, uvloop and httptools, blocking work on the thread pool; no batching",
    ),
    "litserve": Peer(
        "LitServe",
        "litserve",
        ("python", "-m", "benchmarks.peers.litserve_app", "--port", "{port}"),
        "a worker for each CPU, as many API servers, fast_queue, batches of 8, a millisecond to fill them",
    ),
    "bentoml": Peer(
        "BentoML",
        "bentoml",
        ("bentoml", "serve", "benchmarks.peers.bentoml_app:Detector", "--host", "127.0.0.1", "--port", "{port}"),
        "a worker for each CPU; no batching, as that needs a second service and a hop to it",
    ),
    "mlserver": Peer(
        "MLServer",
        "mlserver",
        ("python", "-m", "benchmarks.peers.mlserver_app", "--port", "{port}", "--folder", "{folder}"),
        "a parallel worker for each CPU, an endpoint that takes the photo as it is; no batching, which is for V2 requests",
    ),
    "ray": Peer(
        "Ray Serve",
        "ray",
        ("python", "-m", "benchmarks.peers.ray_app", "--port", "{port}"),
        "a replica for each CPU, serve.batch with batches of 8 and a millisecond to fill them, RAY_SERVE_THROUGHPUT_OPTIMIZED",
    ),
}
