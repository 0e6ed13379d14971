"""Push a finished run to the Hugging Face hub as a repository.

What is pushed holds no pickles: weights as safetensors, everything else as JSON and Markdown.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import save_file

from detector.errors import FileError, UsageError
from detector.files import read_json, shown
from training.errors import HubRefused, HubUnreachable
from training.models.checkpoint import BEST, load_calibration, load_checkpoint
from training.models.hub import WEIGHTS, out_of_reach
from training.options import without_places
from training.report.card import CARD


def push(run: Path, repository: str, *, private: bool = True, allow_faulty: bool = False) -> str:
    """Push a finished run to `org/name` in one commit, making the repository if need be; returns the commit's address.

    The token is HF_TOKEN's or that of `hf auth login`. Sent are the kept epoch's weights, `config.json` (architecture,
    image spec, calibration curve, threshold), the metrics and the model card; no photo, no score and no path of this machine.
    Raises `FileError` when the run is not finished, `UsageError` for one with injected faults, `HubRefused`.
    """
    checkpoint = load_checkpoint(run / BEST)
    if checkpoint.faults and not allow_faulty:
        raise UsageError(f"{run}: faults were injected into this run on purpose; --allow-faulty pushes it all the same")
    metrics = _finished(run)
    method, curve = load_calibration(run / BEST)
    config = {
        "format": "unmask/1",
        "model": checkpoint.model_config.to_dict(),
        "image_spec": checkpoint.image_spec.to_dict(),
        "calibration": {"method": method, **curve.to_dict()},
        "threshold": metrics["threshold"],
        "uncertain": metrics.get("uncertain"),
        "fingerprint": checkpoint.fingerprint,
        "faults": checkpoint.faults,
    }
    shared = {key: metrics[key] for key in ("validation", "counts", "calibration", "threshold", "parameters", "libraries")}
    shared["arguments"] = without_places(metrics["arguments"])
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / WEIGHTS
        save_file({k: v.contiguous() for k, v in checkpoint.weights.items()}, weights, metadata={"format": "pt"})
        files: dict[str, Path | bytes] = {
            WEIGHTS: weights,
            "config.json": json.dumps(config, indent=1).encode(),
            "metrics.json": json.dumps(shared, indent=1, ensure_ascii=False).encode(),
            "README.md": (run / CARD).read_bytes(),
        }
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api = HfApi(library_name="unmask")
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            done = api.create_commit(
                repository, operations, commit_message=f"Unmask: {checkpoint.model_config.name}", num_threads=1
            )
        except HFValidationError as error:
            raise UsageError(f"{repository}: {error}") from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            advice = "; set HF_TOKEN to a token that may write there" if status in (401, 403) else ""
            raise HubRefused(f"{repository}: the hub answered {status}{advice}") from None
        except Exception as error:  # the transport's own, as above
            raise HubUnreachable(f"{repository}: {out_of_reach()} ({type(error).__name__})") from None
    return str(done.commit_url)


def _finished(run: Path) -> dict[str, Any]:
    metrics = read_json(run / "metrics.json", hint="a finished `unmask train` writes it")
    if not (run / CARD).is_file():
        raise FileError(f"{shown(run)}: holds no {CARD}; a finished `unmask train` writes it")
    return metrics
