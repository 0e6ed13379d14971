"""Renewal: a worker that has grown begins anew in its own place, between two batches and with its connection.

TorchServe can only end a worker and start another, which fails what it has just been sent. `execv` keeps the process id and
the open connection: what is sent meanwhile waits in it, and the frontend sees one batch that takes a second longer. Run as a
program, this module is the process that goes on.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_STATE = "UNMASK_RENEWED"  # file descriptor of the connection, and what the frontend had said of the model
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """What this process holds of the machine's memory; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def renew_past(growth: int, context: Any, count: Callable[[], None]) -> None:
    """From now on this worker begins anew when it holds `growth` bytes more than now; `count` is called before it does.

    context: TorchServe's, with what the frontend said of the model.
    """
    program, limit = sys.modules["__main__"], resident_bytes() + growth
    receive = getattr(program, "retrieve_msg", None)
    if receive is None:  # not in a worker of TorchServe's
        return
    properties = context.system_properties
    request = {
        "modelPath": properties["model_dir"],
        "modelName": context.model_name,
        "handler": context.manifest["model"]["handler"],
        "batchSize": properties["batch_size"],
        "limitMaxImagePixels": properties["limit_max_image_pixels"],
        **({} if properties["gpu_id"] is None else {"gpu": properties["gpu_id"]}),
    }

    def receive_or_renew(connection: socket.socket) -> Any:
        if resident_bytes() > limit:
            count()
            _renew(connection, request)
        return receive(connection)

    program.retrieve_msg = receive_or_renew  # type: ignore[attr-defined]  # what TorchServe's loop calls for each message


def _renew(connection: socket.socket, request: Mapping[str, Any]) -> None:
    logging.getLogger("unmask").warning("this worker holds %d MiB and begins anew", resident_bytes() // 2**20)
    connection.set_inheritable(True)
    os.environ[_STATE] = json.dumps([connection.fileno(), request])
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "handlers.renewal", *sys.argv[1:]])  # noqa: S606


def _go_on() -> None:
    from ts.arg_parser import ArgParser
    from ts.model_service_worker import TorchModelServiceWorker

    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    descriptor, request = json.loads(os.environ.pop(_STATE))
    arguments = ArgParser.model_service_worker_args().parse_args()
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    worker = TorchModelServiceWorker(
        arguments.sock_type, arguments.sock_name, arguments.host, arguments.port, arguments.metrics_config
    )
    service, said, code = worker.load_model({k: v.encode() if isinstance(v, str) else v for k, v in request.items()})
    if code != 200:
        raise SystemExit(said)
    service.set_cl_socket(connection)
    while True:
        _, message = retrieve_msg(connection)
        connection.sendall(service.predict(message))


if __name__ == "__main__":
    from ts.protocol.otf_message_handler import retrieve_msg

    _go_on()
