"""A server that asks for tokens: refused without, answered with one, and ready all the same."""

from __future__ import annotations

import json
import stat
import time
from contextlib import closing

import httpx
import pytest

from serve.client.client import GrpcClient, RestClient
from serve.tokens import read_keys
from tests.serve.running import RunningServer, serve, serve_process, unmask


@pytest.fixture(scope="module")
def guarded(artifacts, tmp_path_factory):
    running = RunningServer(artifacts, tmp_path_factory.mktemp("guarded"), "--workers", "1", "--threads", "1", "--token-auth")
    try:
        yield running.await_ready()
    finally:
        running.stop()


def token(server, *flags, run=serve):
    done = run("token", "--state", server.state, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask(server, photo, value):
    """What a client with this token is told over REST and over gRPC."""
    for client in (RestClient(server.record.rest_url, token=value), GrpcClient(server.record.grpc_target, token=value)):
        with closing(client):
            yield client.predict(photo)


def test_predictions_need_the_token_that_the_command_prints(guarded, photos):
    for wrong in ("", "not-this"):
        for answer in ask(guarded, photos[0], wrong):
            assert answer["error"]["code"] == "token_refused"
            assert "unmask serve token" in answer["error"]["message"]
    for answer in ask(guarded, photos[0], token(guarded, run=serve_process)):
        assert answer["ok"], answer


def test_the_supervisors_pages_need_none_and_every_page_of_torchserve_does(guarded):
    assert guarded.probe("readyz")[0] == guarded.probe("livez")[0] == guarded.probe("metrics")[0] == 200
    record = guarded.record
    ping = httpx.URL(record.rest_url).join("/ping")
    for url in (ping, f"{record.management_url}/models", f"{record.management_url}/token?type=inference"):
        refused = httpx.get(url, trust_env=False)
        assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")


def test_the_command_line_finds_the_token_of_a_server_that_runs_here(guarded, photo_files):
    known = unmask("predict", "--state", guarded.state, photo_files[0])
    assert json.loads(known.stdout)["ok"]
    named = ("--url", guarded.record.rest_url, photo_files[0])
    elsewhere = unmask("predict", "--state", guarded.state, *named)
    assert json.loads(elsewhere.stdout)["error"]["code"] == "token_refused", "a token goes to nobody but its own server"
    assert json.loads(unmask("predict", *named, UNMASK_TOKEN=token(guarded)).stdout)["ok"]
    assert serve("promote", "1.0", "--state", guarded.state).returncode == 0


def test_a_renewed_token_puts_an_end_to_the_one_before(guarded, photos):
    stale = token(guarded)
    fresh = token(guarded, "--renew")
    assert fresh != stale
    assert token(guarded) == fresh
    for answer in ask(guarded, photos[0], stale):
        assert answer["error"]["code"] == "token_refused"
    assert all(answer["ok"] for answer in ask(guarded, photos[0], fresh))


def test_keys_are_for_their_owner_alone_and_in_no_log(guarded, photos):
    keys = guarded.record.keys
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.parent.stat().st_mode) == 0o700
    held = read_keys(keys)
    list(ask(guarded, photos[0], held.inference))
    for secret in (held.management, held.inference, held.api):
        assert secret not in guarded.output


def test_a_token_for_management_that_is_no_longer_good_is_renewed(guarded):
    path = guarded.record.keys
    path.write_text(path.read_text().replace(read_keys(path).management, "expired0"))
    deadline = time.monotonic() + 60
    while read_keys(path).management == "expired0":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status = json.loads(serve("status", "--state", guarded.state).stdout)
    assert status["ready"] is True
    assert status["versions"] == {"default": "1.0", "served": ["1.0"]}


def test_a_server_without_tokens_has_none_to_print(server, tmp_path):
    refused = serve("token", "--state", server.state)
    assert refused.returncode == 2
    assert "--token-auth" in refused.stderr
    assert serve("token", "--state", tmp_path).stderr.endswith("[not_running]\n")
