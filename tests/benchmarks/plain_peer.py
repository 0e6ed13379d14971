"""A peer for tests: the scorer behind the standard library's HTTP server. `python -m tests.benchmarks.plain_peer PORT`."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from detector.scorer import Scorer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scorer: Scorer

    def do_POST(self) -> None:
        photo = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(self.scorer.score(photo).to_dict()).encode()
        self.send_response(200 if self.path == "/predictions/detector" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    Handler.scorer = Scorer(os.environ["MODEL"], threads=1)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
