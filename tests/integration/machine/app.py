"""A web service of the standard library that can be made to fail in many ways, by knobs.json.

    late      seconds before it listens        exit      the status it ends with at once
    deaf      it never listens                 stubborn  it ignores SIGTERM
    health    the status of /health            status    the status of every other path
    delay     seconds that every other path takes
    prints    a variable that it prints at its start
    dies      the process ends when /die is asked for
    refuses   a file; it ends at once if that exists

`GET /env?NAME` answers a variable, `GET /print?TEXT` prints a line, every other path the text of
VERSION; the release is in X-Release.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
KNOBS = json.loads((HERE / "knobs.json").read_text())
VERSION = (HERE / "VERSION").read_text().strip()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(KNOBS.get("health", 200), "ok")
            return
        if self.path == "/die":
            os._exit(7)
        if self.path.startswith("/print?"):
            print(self.path.partition("?")[2], flush=True)
        time.sleep(KNOBS.get("delay", 0))
        if self.path.startswith("/env?"):
            self.answer(200, os.environ.get(self.path.partition("?")[2], ""))
        else:
            self.answer(KNOBS.get("status", 200), VERSION)

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("X-Release", VERSION)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    print(f"version {VERSION} begins", flush=True)
    if "prints" in KNOBS:
        print("\x1b[2J", os.environ.get(KNOBS["prints"]), flush=True)
    if "exit" in KNOBS:
        print("ValueError: the moon is not made of cheese", flush=True)
        sys.exit(KNOBS["exit"])
    if "refuses" in KNOBS and Path(KNOBS["refuses"]).exists():
        sys.exit(1)
    if KNOBS.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(KNOBS.get("late", 0))
    if KNOBS.get("deaf"):
        threading.Event().wait()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.daemon_threads = True
    if not KNOBS.get("stubborn"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()


if __name__ == "__main__":
    main()
