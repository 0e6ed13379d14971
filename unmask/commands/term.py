"""Commands that stop what they started when they are told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import wraps
from typing import Any


def stopped_by_term(command: Callable[..., int]) -> Callable[..., int]:
    """CI and `timeout` send TERM: what was started is stopped for it as for Ctrl-C, and in the background too, where a shell
    makes us deaf to SIGINT itself."""

    @wraps(command)
    def call(*args: Any, **kwargs: Any) -> int:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return command(*args, **kwargs)
        finally:
            signal.signal(signal.SIGTERM, before)

    return call
