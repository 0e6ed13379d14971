"""`python -m serve`: start, stop and look at a server, write its files, and send photos to it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_origin

from detector.cli import run
from serve import control, grpc_stubs
from serve.artifacts import install_archives
from serve.client import GrpcClient, RestClient
from serve.predict import predict_files
from serve.record import find_record
from serve.render import Layout, render
from serve.settings import PORTS, Settings, default_state_dir, load_settings


def main(argv: list[str] | None = None) -> int:
    """Run one command; see `--help`."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
    return run(lambda: options.command(options, arguments))


def _start(options: argparse.Namespace, arguments: list[str]) -> int:
    settings = _settings(options)
    if options.background:
        code, output = control.start_in_background([a for a in arguments[1:] if a != "--background"], settings.state)
        print(output, file=sys.stderr if code else sys.stdout)
        return code
    from serve.supervisor import Supervisor

    return Supervisor(settings.with_ports()).run()


def _stop(options: argparse.Namespace, arguments: list[str]) -> int:
    if not control.stop(_state(options)):
        print(f"no server runs from {_state(options)}", file=sys.stderr)
    return 0


def _status(options: argparse.Namespace, arguments: list[str]) -> int:
    status = control.status(_state(options))
    print(json.dumps(status, indent=2))
    return 0 if status["ready"] else 1


def _promote(options: argparse.Namespace, arguments: list[str]) -> int:
    before = control.promote(_state(options), options.version)
    changed = f"before: {before.default}" if before.default != options.version else "as before"
    print(f"{options.version} is the default version ({changed})")
    return 0


def _token(options: argparse.Namespace, arguments: list[str]) -> int:
    print(control.token(_state(options), renew=options.renew))
    return 0


def _render(options: argparse.Namespace, arguments: list[str]) -> int:
    settings = _settings(options)
    layout = Layout(options.out.resolve(), Path(tempfile.gettempdir()))
    command = render(settings, install_archives(settings, layout), layout)
    print(shlex.join(["env", *(f"{k}={v}" for k, v in command.variables.items()), *command.arguments]))
    return 0


def _setup(options: argparse.Namespace, arguments: list[str]) -> int:
    print(grpc_stubs.generate())
    return 0


def _predict(options: argparse.Namespace, arguments: list[str]) -> int:
    record = find_record(_state(options))
    token = options.token or os.environ.get("UNMASK_TOKEN", "")
    elsewhere = options.target if options.grpc else options.url
    if not token and not elsewhere and record is not None and record.keys is not None:
        token = control.token(_state(options))
    fallback = load_settings({})
    client: RestClient | GrpcClient
    if options.grpc:
        target = elsewhere or (record.grpc_target if record else f"127.0.0.1:{fallback.grpc_port}")
        client = GrpcClient(target, version=options.version, token=token)
    else:
        url = f"http://127.0.0.1:{fallback.rest_port}/predictions/detector"
        client = RestClient(elsewhere or (record.rest_url if record else url), version=options.version, token=token)
    failed = False
    with closing(client):
        asked = {"use_calibrator": not options.raw, "overlays": options.explain, "concurrency": options.concurrency}
        for verdict in predict_files(client, options.files, **asked):
            failed = failed or not verdict["ok"]
            print(json.dumps(verdict), flush=True)
    return 1 if failed else 0


def _settings(options: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {k: v for k, v in vars(options).items() if k in Settings.model_fields and v is not None}
    if getattr(options, "free_ports", False):
        given = dict.fromkeys(PORTS, 0) | given
    return load_settings(given)


def _state(options: argparse.Namespace) -> Path:
    return Path(options.state) if options.state else load_settings({}).state


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    start = commands.add_parser("start", help="start a server and stay with it until TERM or Ctrl-C")
    _add_settings(start)
    start.add_argument("--free-ports", action="store_true", help="take free ports for all that are not named")
    start.add_argument("--background", action="store_true", help="come back when the server is ready, and leave it running")
    start.set_defaults(command=_start)

    for name, command, text in (
        ("stop", _stop, "drain and end the server"),
        ("status", _status, "say what runs, as JSON; exit code 0 when it is ready"),
    ):
        sub = commands.add_parser(name, help=text)
        _add_state(sub)
        sub.set_defaults(command=command)

    promote = commands.add_parser("promote", help="let a version answer where requests name none; the same command goes back")
    promote.add_argument("version", metavar="VERSION", help="one of those that `status` lists")
    _add_state(promote)
    promote.set_defaults(command=_promote)

    token = commands.add_parser("token", help="print the token for predictions of a server that was started with --token-auth")
    token.add_argument("--renew", action="store_true", help="make a new one; the one before is refused at once")
    _add_state(token)
    token.set_defaults(command=_token)

    rendered = commands.add_parser("render", help="write TorchServe's files and print the command that uses them")
    _add_settings(rendered)
    rendered.add_argument("--out", type=Path, required=True, help="folder to write to")
    rendered.set_defaults(command=_render)

    setup = commands.add_parser("setup", help="generate the gRPC stubs and print their folder")
    setup.set_defaults(command=_setup)

    predict = commands.add_parser("predict", help="send photos; one JSON verdict a line, in order; exit code 1 if any failed")
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--grpc", action="store_true", help="over gRPC instead of REST")
    predict.add_argument("--raw", "--no-calib", action="store_true", help="the raw probability, not the calibrated one")
    predict.add_argument(
        "--explain", type=Path, metavar="DIR", help="also say which places spoke for it; pictures of that go to DIR"
    )
    predict.add_argument("--version", default="", help="of the model; the default one where none is named")
    predict.add_argument("--token", help="for a server that asks for one (UNMASK_TOKEN); known for one that runs here")
    predict.add_argument("--url", help="of the predictions endpoint, for a server that runs elsewhere")
    predict.add_argument("--target", help="HOST:PORT for gRPC, for a server that runs elsewhere")
    predict.add_argument("--concurrency", type=int, default=8, help="photos on their way at once (8)")
    _add_state(predict)
    predict.set_defaults(command=_predict)
    return parser


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, help=f"state folder of the server ({default_state_dir()})")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting; what is not given is left to the environment and the defaults."""
    for name, field in Settings.model_fields.items():
        annotation: Any = field.annotation
        several = get_origin(annotation) is tuple
        value: Any = field.default[0] if several else field.default
        default = "" if field.default_factory is not None or value == "" else f" ({value})"
        kind: Any = get_args(annotation)[0] if several else annotation
        flag, text = "--" + name.replace("_", "-"), f"{field.description}{default}".replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        parser.add_argument(
            flag,
            action="append" if several else "store",
            type=kind if kind in (int, float, Path) else str,
            choices=get_args(kind) or None,
            help=text,
        )


if __name__ == "__main__":
    sys.exit(main())
