"""Which request it is: the id and the trace that a client gave it, where they are valid."""

from __future__ import annotations

import re
from typing import Any

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
# W3C Trace Context, version 00 and what later ones have in common with it; zeros and version ff are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def valid_request_id(value: Any) -> str | None:
    """A request id of 8 to 128 letters, digits and `.`, `_`, `-`, as text or bytes; None for anything else."""
    return _matching(_REQUEST_ID, value)


def valid_traceparent(value: Any) -> str | None:
    """A W3C traceparent, as text or bytes; None for anything else."""
    return _matching(_TRACEPARENT, value)


def _matching(pattern: re.Pattern[str], value: Any) -> str | None:
    text = value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
    return text if isinstance(text, str) and pattern.fullmatch(text) else None
