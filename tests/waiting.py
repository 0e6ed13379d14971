"""How tests wait: for what they want, and never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0  # seconds; only a hang is that slow


def awaited(
    found: Callable[[], Any],
    wanted: Callable[[Any], object] = bool,
    *,
    patience: float = PATIENCE,
    hint: Callable[[], object] | None = None,
) -> Any:
    """What `found` returns, as soon as it is what is wanted. hint: says in the error what was seen instead."""
    deadline = time.monotonic() + patience
    while not wanted(value := found()):
        assert time.monotonic() < deadline, f"not after {patience:.0f} s: {hint() if hint else value!r}"
        time.sleep(0.05)
    return value
