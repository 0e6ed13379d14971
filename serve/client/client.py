"""Clients of a running server: one photo's bytes in, one verdict's JSON out, over REST or gRPC."""

from __future__ import annotations

import json
from typing import Any, Protocol
from urllib.parse import quote

from detector.errors import BodyTooLarge, UnmaskError
from detector.verdict import error_body
from serve.errors import ModelNotFound, OutOfMemory, Overloaded, ServerError, ServerUnreachable, TimedOut, TokenRefused
from serve.settings import MODEL
from serve.tokens import REFUSED, header

# What TorchServe's frontend says by itself, by its status.
_FRONTEND_ERRORS: dict[int, type[UnmaskError]] = {
    kind.status: kind for kind in (ModelNotFound, TimedOut, BodyTooLarge, Overloaded, OutOfMemory)
}
_WORKER_DIED = "Worker died."  # with the photo in hand; 507 and RESOURCE_EXHAUSTED where it was killed, as the kernel may do


class Client(Protocol):
    """Either client. Safe to share between threads."""

    def predict(
        self,
        data: bytes,
        *,
        use_calibrator: bool = True,
        explain: bool = False,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """The verdict's JSON, or its failing form; with `explain` the heatmap too.

        request_id: 8 to 128 letters, digits and `.`, `_`, `-`, by which the server's answer, logs and traces name the request;
        anything else is replaced by one of the server's. traceparent: W3C trace context.
        Raises `ServerUnreachable` when nothing answers.
        """

    def close(self) -> None:
        """Close the connections."""


class RestClient:
    """A client over HTTP.

    url: of the predictions endpoint, such as http://127.0.0.1:8080/predictions/detector. version: of the model; empty takes
    the default one. token: for a server that requires one.
    """

    def __init__(self, url: str, timeout: float = 60.0, *, version: str = "", token: str = "") -> None:
        import httpx

        self._url = f"{url}/{quote(version, safe='')}" if version else url
        encrypted = not url.lower().startswith("http://")  # certificates take 50 ms to load
        self._http = httpx.Client(timeout=timeout, trust_env=False, headers=header(token), verify=encrypted)
        self._unreachable = httpx.TransportError

    def predict(
        self,
        data: bytes,
        *,
        use_calibrator: bool = True,
        explain: bool = False,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """The verdict's JSON, or its failing form. Raises `ServerUnreachable` when nothing answers."""
        params = ({} if use_calibrator else {"use_calib": "0"}) | ({"explain": "1"} if explain else {})
        try:
            response = self._http.post(
                self._url,
                content=data,
                params=params,
                headers={"Content-Type": "application/octet-stream"} | _identity(request_id, traceparent),
            )
        except self._unreachable as error:
            raise ServerUnreachable(f"{self._url}: nothing answers ({error or type(error).__name__})") from None
        return _verdict(response.content) or _failed(response.status_code, response.text)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class GrpcClient:
    """A client over gRPC.

    target: host and port, such as 127.0.0.1:7070. version: of the model; empty takes the default one. token: for a server
    that requires one.
    """

    def __init__(self, target: str, timeout: float = 60.0, *, version: str = "", token: str = "") -> None:
        import grpc

        from serve.client.grpc_stubs import load

        self._grpc = grpc
        self._messages, services = load()
        self._target, self._timeout, self._version = target, timeout, version
        self._metadata = tuple(header(token).items())
        self._channel = grpc.insecure_channel(target)
        self._stub = services.InferenceAPIsServiceStub(self._channel)

    def predict(
        self,
        data: bytes,
        *,
        use_calibrator: bool = True,
        explain: bool = False,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """The verdict's JSON, or its failing form. Raises `ServerUnreachable` when nothing answers."""
        inputs = {"data": data} | ({} if use_calibrator else {"use_calib": b"0"}) | ({"explain": b"1"} if explain else {})
        # TorchServe's frontend reads the metadata, and its workers get the inputs alone.
        identity = _identity(request_id, traceparent)
        inputs |= {name.replace("x-request-id", "request_id"): value.encode() for name, value in identity.items()}
        request = self._messages.PredictionsRequest(model_name=MODEL, model_version=self._version, input=inputs)
        try:
            reply = self._stub.Predictions(request, timeout=self._timeout, metadata=(*self._metadata, *identity.items()))
        except self._grpc.RpcError as error:
            status = self._grpc.StatusCode
            if error.code() == status.UNAVAILABLE:
                raise ServerUnreachable(f"{self._target}: nothing answers ({error.details()})") from None
            return _failed(self._status(error.code(), error.details() or ""), error.details() or str(error.code()))
        return _verdict(reply.prediction) or _failed(500, "the answer is not JSON")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _status(self, code: Any, details: str) -> int:
        """The HTTP status of the same meaning.

        TorchServe cancels a call whose message is too large.
        """
        known = self._grpc.StatusCode
        if "[overloaded]" in details:
            return 503
        if details.startswith(_WORKER_DIED):
            return 507 if code == known.RESOURCE_EXHAUSTED else 500
        if REFUSED in details:
            return TokenRefused.status
        return {
            known.CANCELLED: 413,
            known.RESOURCE_EXHAUSTED: 413,
            known.DEADLINE_EXCEEDED: 408,
            known.NOT_FOUND: 404,
            known.INVALID_ARGUMENT: 400,
        }.get(code, 500)


def _identity(request_id: str | None, traceparent: str | None) -> dict[str, str]:
    """Headers or metadata."""
    sent = {"x-request-id": request_id, "traceparent": traceparent}
    return {name: value for name, value in sent.items() if value}


def _verdict(body: bytes) -> dict[str, Any] | None:
    """The handler's answer, None when the frontend answered."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "ok" in value else None


def _failed(status: int, text: str) -> dict[str, Any]:
    """A refusal by TorchServe's frontend in the form that the handler uses."""
    if REFUSED in text:
        return error_body(TokenRefused("the token is wrong, has expired, or is missing; `unmask serve token` prints it"))
    reason = "the photo is larger than the server takes" if status == 413 else _message(text)
    error = _FRONTEND_ERRORS.get(status, ServerError)(reason or "the server gave no reason")
    return error_body(error) | {"status": status}


def _message(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip().partition("\n")[0][:300]  # TorchServe puts the name of a Java class on the next line
    return str(value.get("message", "")) if isinstance(value, dict) else ""
