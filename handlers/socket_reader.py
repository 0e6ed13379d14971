"""Reads a worker's socket in large pieces: TorchServe 0.12 asks the kernel forty times a request, mostly for four bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Protocol

PIECE_BYTES = 2**16


class Connection(Protocol):
    """A socket, as far as it is read."""

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


def buffered() -> Callable[[Connection, int], bytearray]:
    """A function that takes a connection and a length, and returns so many bytes of it.

    What it has read too much is for its next call, so that it is for one connection alone, and nothing else may read that. At
    the connection's end it raises `SystemExit`, as TorchServe's own does.
    """
    kept, at = bytearray(), 0

    def read(connection: Connection, length: int) -> bytearray:
        nonlocal kept, at
        end = at + length
        if end <= len(kept):
            piece, at = kept[at:end], end
            return piece
        piece = kept[at:]
        while (missing := length - len(piece)) > 0:
            kept, at = bytearray(connection.recv(max(PIECE_BYTES, missing))), missing
            if not kept:
                sys.exit(0)
            piece += kept[:missing]
        return piece

    return read


def install(codec: ModuleType) -> None:
    """Have TorchServe's codec, `ts.protocol.otf_message_handler`, read so, where it has a function to replace.

    A worker has one connection, and this happens while it answers the first message on it: nothing else is under way.
    """
    if hasattr(codec, "_retrieve_buffer"):
        vars(codec)["_retrieve_buffer"] = buffered()
