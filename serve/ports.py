"""The ports of a server: picked where a setting is 0, checked, and held until TorchServe listens on them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from serve.errors import PortTaken
from serve.settings import PORTS, Settings


@contextmanager
def reserved_ports(settings: Settings) -> Iterator[Settings]:
    """The settings with free ports in place of zeros. Raises `PortTaken`, naming the port, when one is not to be had.

    On Linux the ports are held inside the block: the system gives them to nobody who asks for any port, while a server
    that asks for this very port can listen on it (SO_REUSEADDR, which Java and http.server set, on a socket that is bound
    and does not listen).
    """
    with ExitStack() as held:
        ports: dict[str, int] = {}
        for field, purpose in PORTS.items():
            port, host = getattr(settings, field), settings.bind_host(field)
            holder = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to listen on
            try:
                holder.bind((host, port))
            except OSError as error:
                flag = "--" + field.replace("_", "-")
                raise PortTaken(
                    f"port {port} ({purpose}) is not free on {host} ({error.strerror}); choose another with {flag}"
                ) from None
            ports[field] = holder.getsockname()[1]
        if sys.platform != "linux":  # elsewhere a held port can't be listened on
            held.close()
        yield settings.model_copy(update=ports)
