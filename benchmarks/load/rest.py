"""Requests over REST from one event loop: keep-alive connections that take little CPU time."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from benchmarks.load.mix import Message
from serve.settings import MODEL

REFUSED, RESET, TIMED_OUT = "connection refused", "connection reset", "timed out"


@dataclass(frozen=True)
class Answer:
    """status: HTTP status or gRPC code as text, or what happened to the connection. retry_after: as sent, or ""."""

    status: str
    body: bytes = b""
    retry_after: str = ""


class Connection(asyncio.Protocol):
    """One connection with at most one request in flight. `idle` holds those that wait for the next request."""

    def __init__(self, idle: list[Connection]) -> None:
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []
        self._retry_after = ""
        self._transport: asyncio.Transport | None = None

    async def send(self, request: bytes, timeout: float) -> Answer:
        """Send one request and wait for its whole answer, for `timeout` seconds at the most."""
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        self._answer = loop.create_future()
        limit = loop.call_later(timeout, self._end, TIMED_OUT)
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            limit.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio's callback."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end("not HTTP")

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's callback; the request in flight is lost."""
        self._end(RESET)

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's callback."""
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """The parser's callback."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The parser's callback: the answer is whole."""
        if self._answer and not self._answer.done():
            status = str(self._parser.get_status_code())
            self._answer.set_result(Answer(status, b"".join(self._body), self._retry_after))
        self._body, self._retry_after = [], ""
        if self._parser.should_keep_alive() and self._transport and not self._transport.is_closing():
            self._idle.append(self)
        else:
            self.close()

    def _end(self, status: str) -> None:
        if self in self._idle:
            self._idle.remove(self)
        if self._answer and not self._answer.done():
            self._answer.set_result(Answer(status))
        self.close()


class RestSender:
    """Sends messages to `url`; a connection that is idle is used again, and otherwise another one is opened."""

    def __init__(self, url: str, timeout: float) -> None:
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), address.port or (443 if address.scheme == "https" else 80)
        self._secure, self._netloc = address.scheme == "https", address.netloc
        self._timeout = timeout
        self._idle: list[Connection] = []

    def prepare(self, message: Message) -> bytes:
        """The message as it is sent."""
        verb = "explanations" if message.expected.explain else "predictions"
        kind, body = _body(message)
        head = f"POST /{verb}/{MODEL} HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Type: {kind}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def open(self) -> None:
        """Nothing: connections are opened when they are needed."""

    async def send(self, request: bytes) -> Answer:
        """Send one request; returns what came of it."""
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            opening = loop.create_connection(lambda: Connection(self._idle), self._host, self._port, ssl=self._secure or None)
            try:
                _, connection = await asyncio.wait_for(opening, self._timeout)
            except asyncio.TimeoutError:
                return Answer(TIMED_OUT)
            except ConnectionRefusedError:
                return Answer(REFUSED)
            except OSError:
                return Answer("connection failed")
        return await connection.send(request, self._timeout)

    async def close(self) -> None:
        """Close the idle connections."""
        for connection in list(self._idle):
            connection.close()

    @staticmethod
    def body(answer: Answer) -> bytes:
        """The JSON of an answer."""
        return answer.body


def _body(message: Message) -> tuple[str, bytes]:
    """Content type and body."""
    inputs = message.inputs()
    if not message.expected.several:
        return "application/octet-stream", inputs["data"]
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in inputs.items()
    ]
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()
