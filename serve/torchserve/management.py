"""TorchServe's management API: how many workers are ready, how many requests wait, and which version answers by default."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from serve.errors import ServerUnreachable, UnknownVersion
from serve.settings import MODEL
from serve.tokens import ManagementToken


@dataclass(frozen=True)
class ModelStatus:
    """One look at all versions of the model.

    registered: TorchServe knows all that it should. serving: at least one worker of each is ready; `/ping` says so before they
    are, and after a load has failed. complete: as many as are wanted. ready: process ids of the workers that have loaded the
    model. pending: requests in the queue, by version. default: the version that answers where a request names none.
    """

    registered: bool
    serving: bool = False
    complete: bool = False
    ready: frozenset[int] = field(default_factory=frozenset)
    pending: Mapping[str, int] = field(default_factory=dict)
    default: str = ""


@dataclass(frozen=True)
class Versions:
    """Those that are served; `default` answers where a request names none."""

    default: str
    served: tuple[str, ...]


class Management:
    """A client of the management API on loopback.

    url: such as http://127.0.0.1:8081. keys: TorchServe's key file, where it requires tokens.
    """

    def __init__(self, url: str, keys: Path | None = None, timeout: float = 5.0) -> None:
        token = ManagementToken(keys) if keys is not None else None
        self._client = httpx.Client(base_url=url, auth=token, timeout=timeout, trust_env=False)

    def status(self, wanted: Collection[str], default: str = "") -> ModelStatus | None:
        """The status of the `wanted` versions, None while nothing answers. default: that version, where it is known."""
        try:
            response = self._client.get(f"/models/{MODEL}/all")
            if response.status_code == httpx.codes.NOT_FOUND:
                return ModelStatus(registered=False)
            models = response.raise_for_status().json()
            if not default:
                default = self._client.get(f"/models/{MODEL}").raise_for_status().json()[0]["modelVersion"]
            return _status(models, wanted, default)
        except (httpx.HTTPError, ServerUnreachable, ValueError, LookupError, TypeError):
            return None

    def versions(self) -> Versions:
        """What is served. Raises `ServerUnreachable` when nothing answers."""
        answers = [self._call("GET", f"/models/{MODEL}{path}").json() for path in ("", "/all")]
        try:
            return Versions(answers[0][0]["modelVersion"], tuple(model["modelVersion"] for model in answers[1]))
        except (LookupError, TypeError):
            raise ServerUnreachable("TorchServe's management does not say which versions it serves") from None

    def set_default(self, version: str) -> Versions:
        """Make `version` the default one, and return what was served before.

        Every request is answered by one version or the other, those that come after by the new one. Raises `UnknownVersion`,
        and `ServerUnreachable` when nothing answers.
        """
        before = self.versions()
        if version not in before.served:
            raise UnknownVersion(f"version {version} is not served here; these are: {', '.join(before.served)}")
        if version != before.default:
            self._call("PUT", f"/models/{MODEL}/{quote(version, safe='')}/set-default")
        return before

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _call(self, method: str, path: str) -> httpx.Response:
        try:
            return self._client.request(method, path).raise_for_status()
        except httpx.HTTPError as error:
            raise ServerUnreachable(f"TorchServe's management does not answer ({error or type(error).__name__})") from None


def _status(models: list[dict[str, Any]], wanted: Collection[str], default: str) -> ModelStatus:
    known = {model["modelVersion"]: model for model in models}
    ready = {v: [int(w["pid"]) for w in model["workers"] if w["status"] == "READY"] for v, model in known.items()}
    registered = known.keys() >= set(wanted)
    counts = {version: len(ready.get(version, ())) for version in wanted}
    return ModelStatus(
        registered=registered,
        serving=registered and all(counts.values()),
        complete=registered and all(counts[v] >= max(int(known[v]["minWorkers"]), 1) for v in wanted),
        ready=frozenset(pid for pids in ready.values() for pid in pids),
        pending={version: int(model.get("jobQueueStatus", {}).get("pendingRequests", 0)) for version, model in known.items()},
        default=default,
    )
