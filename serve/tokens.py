"""TorchServe's tokens: it writes them to a key file, and replaces one when it is asked to with the API key."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import httpx

from serve.errors import ServerUnreachable, TokenRefused

REFUSED = "Token Authorization failed"  # what TorchServe says, over REST and gRPC
REWRITE_SECONDS = 1.0


@dataclass(frozen=True)
class Keys:
    """The contents of TorchServe's key file: the tokens for management and predictions, and the key that replaces them."""

    management: str
    inference: str
    api: str


def read_keys(path: Path) -> Keys:
    """Read the key file. Raises `ServerUnreachable` when there is none yet, or none that this user may read."""
    deadline = time.monotonic() + REWRITE_SECONDS
    while True:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Keys(*(values[kind]["key"] for kind in ("management", "inference", "API")))
        except OSError as error:
            raise ServerUnreachable(f"TorchServe's key file can't be read ({error.strerror})") from None
        except (ValueError, LookupError, TypeError):  # TorchServe writes the file in place
            if time.monotonic() > deadline:
                raise ServerUnreachable("TorchServe's key file is not one") from None
            time.sleep(0.01)


class ManagementToken(httpx.Auth):
    """Sends the management token with each request. When it is refused, reads it again, and replaces it if it is the same."""

    requires_response_body = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """httpx's way to let one request take several (`httpx.Auth`)."""
        keys = read_keys(self._path)
        if not refused((yield _bearing(request, keys.management))):
            return
        if read_keys(self._path) == keys:
            yield _bearing(httpx.Request("GET", request.url.copy_with(raw_path=b"/token?type=management")), keys.api)
        yield _bearing(request, read_keys(self._path).management)


def inference_token(rest_url: str, management_url: str, path: Path, *, renew: bool = False) -> str:
    """The token for predictions; with `renew`, or when it has expired, a new one, and the earlier one is refused at once.

    Raises `ServerUnreachable` when nothing answers, `TokenRefused` when TorchServe does not replace it.
    """
    keys = read_keys(path)
    try:
        with httpx.Client(timeout=5, trust_env=False) as client:
            ping = httpx.URL(rest_url).copy_with(raw_path=b"/ping")
            if not renew and not refused(client.get(ping, headers=header(keys.inference))):
                return keys.inference
            answer = client.get(f"{management_url}/token?type=inference", headers=header(keys.api))
    except httpx.HTTPError as error:
        raise ServerUnreachable(f"TorchServe does not answer ({error or type(error).__name__})") from None
    if not answer.is_success or (renewed := read_keys(path).inference) == keys.inference:
        raise TokenRefused("TorchServe did not replace its token; its log has the reason")
    return renewed


def header(token: str) -> dict[str, str]:
    """The HTTP header, or gRPC metadata, of a token; empty without one."""
    return {"authorization": f"Bearer {token}"} if token else {}


def refused(response: httpx.Response) -> bool:
    """Whether a response refuses the token."""
    return response.is_client_error and REFUSED in response.text


def _bearing(request: httpx.Request, token: str) -> httpx.Request:
    request.headers.update(header(token))
    return request
