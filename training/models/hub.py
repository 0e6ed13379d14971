"""First weights from the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from detector.errors import UnmaskError, UsageError
from training.options import HUB

WEIGHTS = "model.safetensors"  # timm's repositories hold theirs under the same name
_NAME = re.compile(rf"{HUB}(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class HubRefused(UnmaskError):
    """The hub does not have what was asked for, does not let us have it, or can't be reached."""

    code = "hub"
    status = 502


def fetch_weights(address: str) -> Path:
    """`model.safetensors` of `hf://org/repo` or `hf://org/repo@revision`, from the local cache where it is up to date.

    Raises `UsageError` for an address of another form, `HubRefused` when there is no such file or the hub can't be reached.
    """
    match = _NAME.fullmatch(address)
    if not match:
        raise UsageError(f"--weights {address}: expected hf://org/repo or hf://org/repo@revision")
    try:
        return Path(hf_hub_download(match["repository"], WEIGHTS, revision=match["revision"]))
    except RepositoryNotFoundError:
        raise HubRefused(f"{address}: there is no such repository, or it is private and HF_TOKEN is not set") from None
    except EntryNotFoundError:
        raise HubRefused(f"{address}: has no {WEIGHTS}") from None
    except HFValidationError as error:
        raise UsageError(f"--weights {address}: {error}") from None
    except Exception as error:  # the transport's own, httpx's or httpx2's by the release of huggingface_hub
        raise HubRefused(f"{address}: can't be fetched ({type(error).__name__}); give a local file instead") from None
