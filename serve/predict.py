"""Many files through a client: a few at a time, answers in the files' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from detector.errors import FileProblem, UnmaskError
from detector.verdict import error_body
from serve.client import Client


def predict_files(
    client: Client, paths: Iterable[Path], *, use_calibrator: bool = True, concurrency: int = 8
) -> Iterator[dict[str, Any]]:
    """One verdict or failure for each file, in order, with its `path`; at most `concurrency` are on their way at once."""

    def one(path: Path) -> dict[str, Any]:
        try:
            data = path.read_bytes()
        except OSError as error:
            return _failure(path, FileProblem(f"{path}: can't be read ({error.strerror})"))
        try:
            return {"path": str(path)} | client.predict(data, use_calibrator=use_calibrator)
        except UnmaskError as error:
            return _failure(path, error)

    with ThreadPoolExecutor(concurrency) as pool:
        waiting: deque[Future[dict[str, Any]]] = deque()
        for path in paths:
            if len(waiting) >= concurrency:
                yield waiting.popleft().result()
            waiting.append(pool.submit(one, path))
        while waiting:
            yield waiting.popleft().result()


def _failure(path: Path, error: UnmaskError) -> dict[str, Any]:
    return {"path": str(path)} | error_body(error)
