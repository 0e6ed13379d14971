"""The log of requests: all that failed, and a share of the others."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

from serve.logs.log import Emit
from serve.records.record import RequestRecord, as_fields

ALIKE_PER_SECOND = 100


class AccessLog:
    """Writes a line for each request that failed and for a share of those that did not, the same ones everywhere.

    Of failures that the frontend alone has answered and that differ in nothing but their time and id, a second has so many
    lines and one that says how often the last was repeated: an overload does not fill the disk. clock: in seconds.
    """

    def __init__(self, emit: Emit, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._emit, self._below, self._clock = emit, int(share * 2**32), clock
        self._second = 0
        self._alike: dict[tuple[str, ...], int] = {}
        self._last: dict[tuple[str, ...], RequestRecord] = {}

    def write(self, record: RequestRecord) -> None:
        """Log a record, if it is to be logged."""
        if not record.failed:
            if zlib.crc32((record.request_id or "").encode()) < self._below:
                self._emit("request", "info", **as_fields(record))
            return
        if record.worker is None:
            self.flush()
            alike = (record.protocol, record.route.kind, record.version, record.status)
            count = self._alike[alike] = self._alike.get(alike, 0) + 1
            if count > ALIKE_PER_SECOND:
                self._last[alike] = record
                return
        self._emit("request", _level(record), **as_fields(record))

    def flush(self, *, over: bool = False) -> None:
        """Write what was held back in the last second. over: also in this one, as nothing comes after it."""
        second = int(self._clock())
        if second == self._second and not over:
            return
        for alike, record in self._last.items():
            repeated = self._alike[alike] - ALIKE_PER_SECOND
            self._emit("request", _level(record), **as_fields(record), repeated=repeated)
        self._second = second
        self._alike.clear()
        self._last.clear()


def _level(record: RequestRecord) -> str:
    if not record.server_failed:
        return "info"
    return "warning" if record.refused else "error"
