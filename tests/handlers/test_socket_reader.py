"""A worker reads its socket in large pieces and finds the same requests."""

from __future__ import annotations

import random
import socket
import struct
import threading

import pytest
from ts.protocol import otf_message_handler as codec

from handlers.socket_reader import PIECE_BYTES, buffered, install


def field(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def message(bodies: list[bytes]) -> bytes:
    """A batch as TorchServe's frontend sends it."""
    end, parts = struct.pack("!i", -1), [b"I"]
    for number, body in enumerate(bodies):
        parts += [field(b"job-%d" % number), field(b"Content-Length"), field(b"%d" % len(body)), end]
        parts += [field(b"body"), field(b"image/jpeg"), field(body), end]
    return b"".join([*parts, end])


@pytest.fixture
def connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_batches_of_any_size_come_through_as_torchserves_own_reader_has_them(connection, monkeypatch):
    monkeypatch.setattr(codec, "_retrieve_buffer", None)
    install(codec)
    ours, theirs = connection
    draw = random.Random(3)
    batches = [
        [draw.randbytes(draw.choice((0, 1, 900, PIECE_BYTES, 300_000))) for _ in range(draw.randint(1, 8))] for _ in range(20)
    ]
    sender = threading.Thread(target=lambda: [theirs.sendall(message(batch)) for batch in batches], daemon=True)
    sender.start()
    for batch in batches:
        command, requests = codec.retrieve_msg(ours)
        assert command == b"I"
        assert [request["parameters"][0]["value"] for request in requests] == batch
        assert [request["requestId"] for request in requests] == [b"job-%d" % n for n in range(len(batch))]
        assert [request["headers"][0]["value"] for request in requests] == [b"%d" % len(body) for body in batch]
    sender.join()


def test_what_comes_a_byte_at_a_time_is_waited_for(connection):
    ours, theirs = connection
    read = buffered()
    sender = threading.Thread(target=lambda: [theirs.sendall(bytes([n])) for n in range(10)], daemon=True)
    sender.start()
    assert (read(ours, 4), read(ours, 0), read(ours, 6)) == (b"\0\1\2\3", b"", bytes(range(4, 10)))
    sender.join()


def test_the_end_of_the_connection_ends_the_worker(connection):
    ours, theirs = connection
    read = buffered()
    theirs.sendall(b"abc")
    theirs.shutdown(socket.SHUT_WR)
    assert read(ours, 2) == b"ab"
    with pytest.raises(SystemExit) as ended:
        read(ours, 4)
    assert ended.value.code == 0
