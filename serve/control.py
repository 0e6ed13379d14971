"""Control of servers in the background: start, status, stop, promote, token, feedback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from detector.errors import UsageError
from serve.client.feedback import send_labels
from serve.errors import NotRunning, ServerUnreachable, StillRunning
from serve.record import Record, announcement, find_record
from serve.settings import Settings
from serve.tokens import inference_token
from serve.torchserve.management import Management, Versions

STOP_MARGIN_SECONDS = 30.0


def start_in_background(settings: Settings) -> tuple[int, str]:
    """Start a supervisor with these settings, and return when it is ready or has ended.

    Its log is appended to `log_file`, by default `logs/server.log` of the state folder. Returns 0 or its exit code, and what
    it has to say: where it listens, or why it ended.
    """
    log = (settings.log_file or settings.state / "logs" / "server.log").absolute()
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "unmask", "serve", "start"],
            env=os.environ | settings.to_env() | {"UNMASK_LOG_FILE": str(log)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            while (code := child.poll()) is None:
                record = find_record(settings.state)
                if record is not None and record.pid == child.pid:
                    ready, answer = _probe(record, "/readyz")
                    if ready:
                        return 0, "\n".join([announcement(record), *_warnings(answer)])
                time.sleep(0.1)
        except KeyboardInterrupt:
            child.terminate()
            raise
        errors.seek(0)
        return code, errors.read().decode("utf-8", errors="replace").strip()


def _warnings(answer: dict[str, Any]) -> list[str]:
    """What `/readyz` says against the models, a line each."""
    return [
        f"warning: version {version}: {warning['message']} [{warning['code']}]"
        for version, model in answer.get("models", {}).items()
        for warning in model["warnings"]
    ]


def stop(state: Path) -> bool:
    """Drain and end the server of `state`, and wait for it; False when none runs.

    Raises `StillRunning` when it goes on well after its drain limit.
    """
    record = find_record(state)
    if record is None:
        return False
    os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + record.drain_limit + STOP_MARGIN_SECONDS
    while record.alive:
        if time.monotonic() > deadline:
            raise StillRunning(f"process {record.pid} has not ended; its logs are in {record.logs}")
        time.sleep(0.05)
    return True


def promote(state: Path, version: str) -> Versions:
    """Make another version the default one of the server of `state`, and return what it served before.

    Raises `NotRunning`, `UnknownVersion`, and `ServerUnreachable` when TorchServe's management does not answer.
    """
    record = _running(state)
    with closing(Management(record.management_url, record.keys)) as management:
        return management.set_default(version)


def feedback(state: Path, labels: Sequence[dict[str, Any]]) -> int:
    """Give labels of scored photos to the server of `state`, and return how many it took.

    Raises `NotRunning`, and what `send_labels` raises.
    """
    return send_labels(_running(state).supervisor_url, labels)


def token(state: Path, *, renew: bool = False) -> str:
    """The token for predictions of the server of `state`; a new one when it has expired, or with `renew`.

    Raises `NotRunning`, `UsageError` when the server asks for none, and what `inference_token` raises.
    """
    record = _running(state)
    if record.keys is None:
        raise UsageError("this server requires no token; `unmask serve start --token-auth` starts one that does")
    return inference_token(record.rest_url, record.management_url, record.keys, renew=renew)


def status(state: Path) -> dict[str, Any]:
    """What runs from `state`, as JSON values; `running` and `ready` are always there."""
    record = find_record(state)
    if record is None:
        return {"running": False, "ready": False, "state": str(state)}
    ready, answer = _probe(record, "/readyz")
    try:
        with closing(Management(record.management_url, record.keys)) as management:
            versions = asdict(management.versions())
    except ServerUnreachable:
        versions = {}
    return {
        "running": True,
        "ready": ready,
        "reason": answer.get("reason", "the supervisor does not answer"),
        "pid": record.pid,
        "archive": record.archive,
        "device": record.device,
        "versions": versions,
        "workers": answer.get("workers", {}),
        "queue": answer.get("queue", {}),
        "models": answer.get("models", {}),
        "rest": record.rest_url,
        "grpc": record.grpc_target,
        "supervisor": record.supervisor_url,
        "management": record.management_url,
        "ports": record.ports,
        "logs": record.logs,
        "state": str(state),
    }


def _running(state: Path) -> Record:
    record = find_record(state)
    if record is None:
        raise NotRunning(f"no server runs from {state}; --state names the folder of one that does")
    return record


def _probe(record: Record, path: str) -> tuple[bool, dict[str, Any]]:
    try:
        response = httpx.get(record.supervisor_url + path, timeout=5, trust_env=False)
        return response.is_success, json.loads(response.content)
    except (httpx.HTTPError, ValueError):
        return False, {}
