"""Clients of a server that count what they were answered, by protocol and code."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import httpx

from serve.client.grpc_stubs import load
from serve.settings import MODEL

NO_ANSWER = "no answer"  # nobody listens
CUT = "cut"  # the connection ended before the answer


class Clients:
    """Clients that ask again and again while the block runs, each over a connection of its own.

    rest, grpc: how many over each protocol. pause: seconds between an answer and the next request. version: of the model.
    """

    def __init__(
        self,
        rest_url: str,
        grpc_target: str,
        photos: Sequence[bytes],
        *,
        rest: int = 0,
        grpc: int = 0,
        pause: float = 0.0,
        version: str = "",
    ) -> None:
        self.codes: Counter[tuple[str, str]] = Counter()
        self.latencies: list[tuple[str, float]] = []
        self._rest_url = f"{rest_url}/{version}" if version else rest_url
        self._grpc_target, self._photos, self._pause, self._version = grpc_target, photos, pause, version
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._rest, args=(i,), daemon=True) for i in range(rest)]
        self._threads += [threading.Thread(target=self._grpc, args=(i,), daemon=True) for i in range(grpc)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def counted(self, protocol: str) -> Counter[str]:
        """How often each code was answered over a protocol."""
        return Counter({code: n for (p, code), n in self.codes.copy().items() if p == protocol})

    def _loop(self, protocol: str, ask: Callable[[bytes], str], number: int) -> None:
        turn = number
        while not self._over.is_set():
            start = time.perf_counter()
            code = ask(self._photos[turn % len(self._photos)])
            taken = time.perf_counter() - start
            with self._lock:
                self.codes[protocol, code] += 1
                self.latencies.append((protocol, taken))
            turn += 1
            self._over.wait(max(self._pause, 0.05 if code in (NO_ANSWER, CUT) else 0.0))

    def _rest(self, number: int) -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:

            def ask(photo: bytes) -> str:
                try:
                    sent = {"Content-Type": "application/octet-stream"}
                    return str(http.post(self._rest_url, content=photo, headers=sent).status_code)
                except httpx.ConnectError:
                    return NO_ANSWER
                except httpx.TransportError:
                    return CUT

            self._loop("rest", ask, number)

    def _grpc(self, number: int) -> None:
        messages, services = load()
        # A channel of its own: by default all of a process to one server share a connection.
        with grpc.insecure_channel(self._grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = services.InferenceAPIsServiceStub(channel)

            def ask(photo: bytes) -> str:
                request = messages.PredictionsRequest(model_name=MODEL, model_version=self._version, input={"data": photo})
                call: Any = stub.Predictions.future(request, timeout=60)
                code: grpc.StatusCode = call.code()
                if code != grpc.StatusCode.UNAVAILABLE:
                    return code.name
                return NO_ANSWER if "failed to connect" in (call.details() or "") else CUT

            self._loop("grpc", ask, number)


WRK = shutil.which("wrk")
# Once the time is over, each connection waits before it sends: what has been sent is answered, and counted.
SCRIPT = """
local file = io.open("{photo}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/octet-stream"
file:close()
local over = os.time() + {seconds}
codes = ""
local counts = {{}}
function delay() if os.time() >= over then return 3600000 end return {pause} end
function response(status) counts[status] = (counts[status] or 0) + 1
  codes = ""
  for code, n in pairs(counts) do codes = codes .. '"' .. code .. '": ' .. n .. ', ' end
end
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function done(summary)
  local e = summary.errors
  io.write(string.format('{{"codes": {{%s"0": 0}}, "connect": %d, "read": %d, "write": %d, "timeout": %d}}\\n',
    threads[1]:get("codes"), e.connect, e.read, e.write, e.timeout))
end
"""


class Wrk:
    """One `wrk` with so many connections that ask for `seconds`; it ends when what it sent is answered, `rest` seconds later.

    pause: milliseconds between an answer and the next request of a connection.
    """

    def __init__(
        self, folder: Path, url: str, photo: bytes, *, connections: int, seconds: int, rest: int = 10, pause: int = 0
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "photo").write_bytes(photo)
        (folder / "script.lua").write_text(SCRIPT.format(photo=folder / "photo", seconds=seconds, pause=pause))
        flags = ["-t1", f"-c{connections}", f"-d{seconds + rest}s", "--timeout", "60s", "-s", str(folder / "script.lua")]
        self._seconds = seconds + rest
        self.process = subprocess.Popen(["wrk", *flags, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def result(self) -> tuple[Counter[str], dict[str, int]]:
        """How often each status was answered, and how many connections failed in which way."""
        out, _ = self.process.communicate(timeout=self._seconds + 60)
        found = json.loads(out.strip().splitlines()[-1])
        codes = found.pop("codes")
        return Counter({code: n for code, n in codes.items() if n}), found

    def close(self) -> None:
        """End it early."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
