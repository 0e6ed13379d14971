"""`unmask serve …` and `unmask predict`."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from detector.errors import UsageError
from serve.settings import PORTS, Settings, load_settings
from unmask.parameters import Count, State, Switch

ServerSettings = Annotated[Settings | None, Parameter(name="*")]


def start(*, settings: ServerSettings = None, free_ports: Switch = False, background: Switch = False) -> int:
    """Start a server; it runs until TERM or Ctrl-C.

    Each option is also a variable UNMASK_NAME; the option wins.

    Parameters
    ----------
    free_ports
        Use a free port for each port that is not given.
    background
        Return when the server is ready, and leave it running.
    """
    settings = _with_ports(settings or load_settings({}), free_ports)
    if background:
        from serve import control

        code, output = control.start_in_background(settings)
        print(output, file=sys.stderr if code else sys.stdout)
        return code
    from serve.supervisor import Supervisor
    from unmask import __version__

    return Supervisor(settings, __version__).run()


def stop(*, state: State = None) -> int:
    """Drain a server and end it."""
    from serve import control

    folder = _state(state)
    if not control.stop(folder):
        print(f"no server runs from {folder}", file=sys.stderr)
    return 0


def status(*, state: State = None) -> int:
    """Print the state of a server as JSON; exit with 0 when it is ready."""
    from serve import control

    found = control.status(_state(state))
    print(json.dumps(found, indent=2))
    return 0 if found["ready"] else 1


def promote(
    version: Annotated[str, Parameter(help="A version that `unmask serve status` lists.")], /, *, state: State = None
) -> int:
    """Make a version the default one."""
    from serve import control

    before = control.promote(_state(state), version)
    changed = f"before: {before.default}" if before.default != version else "as before"
    print(f"{version} is the default version ({changed})")
    return 0


def token(
    *,
    renew: Annotated[Switch, Parameter(help="Make a new token; the server refuses the earlier one at once.")] = False,
    state: State = None,
) -> int:
    """Print the token for predictions, or renew it."""
    from serve import control

    print(control.token(_state(state), renew=renew))
    return 0


def render(*, settings: ServerSettings = None, out: Annotated[Path, Parameter(help="Folder to write to.")]) -> int:
    """Write TorchServe's files and print the command that uses them."""
    from serve.torchserve.artifacts import install_archives
    from serve.torchserve.render import Layout
    from serve.torchserve.render import render as render_files

    settings = settings or load_settings({})
    layout = Layout(out.resolve(), Path(tempfile.gettempdir()))
    command = render_files(settings, install_archives(settings, layout), layout)
    print(shlex.join(["env", *(f"{k}={v}" for k, v in command.variables.items()), *command.arguments]))
    return 0


def setup() -> int:
    """Generate the gRPC stubs and print their folder."""
    from serve.client import grpc_stubs

    print(grpc_stubs.generate())
    return 0


def predict(
    *files: Annotated[Path, Parameter(help="Photos.")],
    grpc: Switch = False,
    raw: Annotated[Switch, Parameter(alias="--no-calib")] = False,
    explain: Path | None = None,
    version: str = "",
    token: str | None = None,
    url: str | None = None,
    target: str | None = None,
    concurrency: Count = 8,
    state: State = None,
) -> int:
    """Send photos to a server; print one verdict a line.

    Parameters
    ----------
    grpc
        Use gRPC instead of REST.
    raw
        Decide on the raw probability.
    explain
        Also write a picture with the heatmap of each photo to this folder.
    version
        Version of the model (default: the server's default version).
    token
        Token for a server that asks for one (default: UNMASK_TOKEN, or the token of the server that runs here).
    url
        Address of the predictions endpoint of a server that runs elsewhere.
    target
        HOST:PORT for gRPC of a server that runs elsewhere.
    concurrency
        How many photos to send at the same time.
    """
    if not files:
        raise UsageError("give one photo or more")
    from serve import control
    from serve.client.client import GrpcClient, RestClient
    from serve.client.predict import predict_files
    from serve.record import find_record

    record = find_record(_state(state))
    key = token or os.environ.get("UNMASK_TOKEN", "")
    elsewhere = target if grpc else url
    if not key and not elsewhere and record is not None and record.keys is not None:
        key = control.token(_state(state))
    fallback = load_settings({})
    client: RestClient | GrpcClient
    if grpc:
        address = elsewhere or (record.grpc_target if record else f"127.0.0.1:{fallback.grpc_port}")
        client = GrpcClient(address, version=version, token=key)
    else:
        here = f"http://127.0.0.1:{fallback.rest_port}/predictions/detector"
        client = RestClient(elsewhere or (record.rest_url if record else here), version=version, token=key)
    failed = False
    with closing(client):
        for verdict in predict_files(client, files, use_calibrator=not raw, overlays=explain, concurrency=concurrency):
            failed = failed or not verdict["ok"]
            print(json.dumps(verdict), flush=True)
    return 1 if failed else 0


def _with_ports(settings: Settings, free_ports: bool) -> Settings:
    """With zero for each port that nobody gave, where free ones are asked for."""
    if not free_ports:
        return settings
    return load_settings(dict.fromkeys(PORTS, 0) | settings.model_dump(include=settings.model_fields_set))


def _state(state: Path | None) -> Path:
    return state or load_settings({}).state
