"""A load generator over REST that takes little CPU time: one thread, keep-alive connections, answers checked afterwards.

Locust takes 0.3 to 0.6 ms of CPU time a request, and more for the checks; where clients and server share a machine, the
server lacks that time. This client takes a tenth of it. `benchmarks.load.generator` starts it as a process of its own, as it
does Locust, and it writes the same samples.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load.checker import AnswerChecker
from benchmarks.machine import busy_seconds
from benchmarks.photos import Photo, load_photos
from serve.settings import MODEL

TIMEOUT_SECONDS = 60.0
_END_OF_HEADERS = b"\r\n\r\n"


@dataclass
class Request:
    """A request and its answer. photo: index. started: seconds since the epoch. answer: head and body, empty when the
    connection broke."""

    photo: int
    started: float
    milliseconds: float = 0.0
    answer: bytes = b""


@dataclass
class Client:
    """A connection and its request in flight. photo: index of the next photo. wanted: size of the whole answer in bytes, once
    it is known."""

    connection: socket.socket
    photo: int
    request: Request | None = None
    clock: float = 0.0
    answer: bytearray = field(default_factory=bytearray)
    wanted: int | None = None


def run(host: str, port: int, photos: Sequence[bytes], *, clients: int, seconds: float) -> list[Request]:
    """Send photos from `clients` connections, each waiting for its answer; returns the requests in order of completion.

    No request starts after `seconds`; those in flight are waited for. A client whose connection breaks opens another.
    Raises `OSError` when nothing listens or no answer comes for a minute, `ValueError` for an answer without Content-Length.
    """
    head = f"POST /predictions/{MODEL} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/octet-stream\r\n"
    messages = [f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data for data in photos]
    done: list[Request] = []
    with selectors.DefaultSelector() as waiting:
        for number in range(clients):
            client = Client(_connect(host, port), number * 7 % len(messages))
            waiting.register(client.connection, selectors.EVENT_READ, client)
            _send(client, messages)
        end = time.monotonic() + seconds
        while waiting.get_map():
            ready = waiting.select(TIMEOUT_SECONDS)
            if not ready:
                raise TimeoutError(f"no answer for {TIMEOUT_SECONDS:.0f} s")
            for key, _ in ready:
                client = key.data
                finished = _receive(client)
                if finished is None:
                    continue
                done.append(finished)
                over = time.monotonic() >= end
                if over or not finished.answer:
                    waiting.unregister(client.connection)
                    client.connection.close()
                if over:
                    continue
                if not finished.answer:
                    client.connection = _connect(host, port)
                    waiting.register(client.connection, selectors.EVENT_READ, client)
                _send(client, messages)
    return done


def _connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send(client: Client, messages: Sequence[bytes]) -> None:
    client.answer.clear()
    client.wanted = None
    client.request = Request(client.photo, time.time())
    client.clock = time.perf_counter()
    with suppress(ConnectionError):  # reading then finds the connection closed
        client.connection.sendall(messages[client.photo])
    client.photo = (client.photo + 1) % len(messages)


def _receive(client: Client) -> Request | None:
    """The request that is complete with this piece, or whose connection broke; None while more is to come."""
    try:
        piece = client.connection.recv(65536)
    except ConnectionError:
        piece = b""
    if piece:
        client.answer += piece
        if client.wanted is None:
            end = client.answer.find(_END_OF_HEADERS)
            if end < 0:
                return None
            client.wanted = end + len(_END_OF_HEADERS) + _content_length(bytes(client.answer[:end]))
        if len(client.answer) < client.wanted:
            return None
    else:
        client.answer.clear()
    request = client.request
    assert request is not None
    request.milliseconds = 1e3 * (time.perf_counter() - client.clock)
    request.answer = bytes(client.answer)
    return request


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise ValueError("an answer has no Content-Length")


def check(requests: Sequence[Request], photos: Sequence[Photo], checker: AnswerChecker) -> list[str]:
    """The problem with each answer, an empty text where there is none."""
    problems = []
    for request in requests:
        if not request.answer:
            problems.append("the connection broke")
            continue
        head, _, body = request.answer.partition(_END_OF_HEADERS)
        status = int(head.split(b" ", 2)[1])
        problems.append(checker.problem(photos[request.photo].name, body, status) or "")
    return problems


def main(argv: list[str] | None = None) -> int:
    """Load a server for some seconds and write the samples as JSON."""
    parser = argparse.ArgumentParser(prog="unmask bench.closed_loop", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--host", required=True, metavar="URL")
    add("--users", type=int, required=True)
    add("--seconds", type=float, required=True)
    add("--photos", type=Path)
    add("--photo-count", type=int, required=True)
    add("--known", type=Path, required=True, help="JSON: calibrated probability by photo name")
    add("--samples", type=Path, required=True, help="where to write")
    arguments = parser.parse_args(argv)
    photos = load_photos(arguments.photos, arguments.photo_count)
    checker = AnswerChecker(json.loads(arguments.known.read_text(encoding="utf-8")))
    address = urlsplit(arguments.host)
    cpu, machine_cpu = time.process_time(), busy_seconds()
    bodies = [photo.data for photo in photos]
    try:
        requests = run(str(address.hostname), address.port or 80, bodies, clients=arguments.users, seconds=arguments.seconds)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    values: dict[str, Any] = {
        "cpu_seconds": time.process_time() - cpu,
        "machine_cpu_seconds": busy_seconds() - machine_cpu,
        "started": [request.started for request in requests],
        "milliseconds": [request.milliseconds for request in requests],
        "problems": check(requests, photos, checker),
    }
    arguments.samples.write_text(json.dumps(values), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
