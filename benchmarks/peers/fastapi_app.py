"""FastAPI, uvicorn and ONNX Runtime, without batching: `MODEL=artifacts/model.onnx uvicorn benchmarks.peers.fastapi_app:app`.

As FastAPI's manual has it, blocking work is in a plain `def`, which runs on the thread pool, and there are `--workers`
processes, one a CPU. Each session has one thread, since requests already keep every CPU busy.
"""

import os
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse

from detector import ImageError
from detector.scorer import Scorer
from detector.verdict import error_body

scorer = Scorer(os.environ["MODEL"], threads=1)


def predict(photo: Annotated[bytes, Body(media_type="application/octet-stream")]) -> JSONResponse:
    """One photo's verdict; the whole body is the photo, and what is none is refused with its status."""
    try:
        return JSONResponse(scorer.score(photo).to_dict())
    except ImageError as error:
        return JSONResponse(error_body(error), error.status)


app = FastAPI()
app.add_api_route("/predictions/detector", predict, methods=["POST"])
