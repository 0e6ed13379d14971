"""Calls over gRPC from one event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import cycle

import grpc

from benchmarks.load.mix import Message
from benchmarks.load.rest import TIMED_OUT, Answer
from serve.client import grpc_stubs
from serve.settings import MODEL

CHANNELS = 8
# Channels of their own, or all of a process share one connection; and no retries that nobody would see.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
OPEN_SECONDS = 2.0


class GrpcSender:
    """Sends messages to `target`, host:port, over at most `channels` connections in turn."""

    def __init__(self, target: str, timeout: float, channels: int = CHANNELS) -> None:
        self._messages, _ = grpc_stubs.load()
        service = self._messages.DESCRIPTOR.services_by_name["InferenceAPIsService"].full_name
        self._timeout = timeout
        self._channels = [grpc.aio.insecure_channel(target, OPTIONS) for _ in range(channels)]
        # Bytes in, bytes out: messages are made before the load, and read after it.
        self._calls = cycle([channel.unary_unary(f"/{service}/Predictions") for channel in self._channels])

    def prepare(self, message: Message) -> bytes:
        """The message as it is sent."""
        inputs = message.inputs() | ({"explain": b"1"} if message.expected.explain else {})
        return bytes(self._messages.PredictionsRequest(model_name=MODEL, input=inputs).SerializeToString())

    async def open(self) -> None:
        """Open the connections; where nothing listens the calls say so."""
        ready = asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ready, OPEN_SECONDS)

    async def send(self, request: bytes) -> Answer:
        """Make one call; returns what came of it."""
        try:
            return Answer("OK", await next(self._calls)(request, timeout=self._timeout))
        except grpc.aio.AioRpcError as error:
            sent = {key: str(value) for key, value in error.trailing_metadata() or ()}
            status = TIMED_OUT if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else error.code().name
            return Answer(status, (error.details() or "").encode(), sent.get("grpc-retry-pushback-ms", ""))

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    def body(self, answer: Answer) -> bytes:
        """The JSON of an answer."""
        return bytes(self._messages.PredictionResponse.FromString(answer.body).prediction)
