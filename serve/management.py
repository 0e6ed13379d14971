"""What TorchServe's management API says of the model: how many workers are ready, and how many requests wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from serve.settings import LOOPBACK, MODEL, Settings


@dataclass(frozen=True)
class ModelStatus:
    """One look at the model.

    registered: TorchServe knows the model. wanted: workers it should have. ready: process ids of the workers that have loaded
    the model. pending: requests in the queue. capacity: requests that still fit into it.
    """

    registered: bool
    wanted: int = 0
    ready: frozenset[int] = field(default_factory=frozenset)
    pending: int = 0
    capacity: int = 0

    @property
    def serving(self) -> bool:
        """Whether all the wanted workers are ready; `/ping` says so before they are, and after a load has failed."""
        return self.registered and len(self.ready) >= max(self.wanted, 1)


class Management:
    """A client of the management API on loopback."""

    def __init__(self, settings: Settings, timeout: float = 5.0) -> None:
        self._client = httpx.Client(base_url=f"http://{LOOPBACK}:{settings.management_port}", timeout=timeout, trust_env=False)

    def status(self) -> ModelStatus | None:
        """The model's status, None while nothing answers."""
        try:
            response = self._client.get(f"/models/{MODEL}")
            if response.status_code == httpx.codes.NOT_FOUND:
                return ModelStatus(registered=False)
            response.raise_for_status()
            return _status(response.json()[0])
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return None

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


def _status(model: dict[str, Any]) -> ModelStatus:
    queue = model.get("jobQueueStatus", {})
    return ModelStatus(
        registered=True,
        wanted=int(model["minWorkers"]),
        ready=frozenset(int(w["pid"]) for w in model["workers"] if w["status"] == "READY"),
        pending=int(queue.get("pendingRequests", 0)),
        capacity=int(queue.get("remainingCapacity", 0)),
    )
