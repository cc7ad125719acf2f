"""A web service on the standard library alone, with the faults that `faults.json` says.

    version    what it calls itself, in X-Release
    start      seconds until it listens
    eats       bytes of memory that it fills before it listens
    exits      the status that it exits with instead of listening
    helper     it starts a process in a session of its own, and adds its id to the file `helpers`
    dies       seconds until it exits with status 7, after it listens
    mute       it accepts connections and answers none, as a server whose workers cannot start
    deaf       it never listens
    stubborn   it ignores SIGTERM
    health     the status of GET /healthz (200)
    smoke      the status of GET /smoke (200)
    check      the exit status of `app.py check` (0)
    job        the exit status of `app.py job` (0)
    status     the status of everything else (200)
    delay      seconds until it answers anything else

POST /eat fills 512 MiB of memory. A running one dies as soon as it begins when there is a file
`crash` in the folder that MARKS names.
`app.py worker` listens to nobody.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = json.loads(Path(__file__).with_name("faults.json").read_text())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if FAULTS.get("mute"):
            self.close_connection = True
            return
        if self.path == "/healthz":
            self.answer(FAULTS.get("health", 200), b"healthy?\n")
        elif self.path == "/smoke":
            self.answer(FAULTS.get("smoke", 200), b"smoke\n")
        else:
            time.sleep(FAULTS.get("delay", 0))
            self.answer(FAULTS.get("status", 200), FAULTS["version"].encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/eat":
            fill(2**29)
        self.answer(200, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Release", FAULTS["version"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        pass


def fill(size: int) -> bytearray:
    """Memory that is really used."""
    return bytearray(b"x") * size


def serve() -> None:
    """Listen until SIGTERM, and answer what has begun."""
    server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)

    def stop(*_: object) -> None:
        if not FAULTS.get("stubborn"):
            os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    if FAULTS.get("helper"):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        with (Path(os.environ["MARKS"]) / "helpers").open("a") as helpers:
            helpers.write(f"{child.pid}\n")
    if "dies" in FAULTS:
        threading.Timer(FAULTS["dies"], os._exit, [7]).start()
    server.serve_forever()


def main(what: str) -> int:
    print(f"This is {FAULTS['version']} as {what}.", flush=True)
    if what in ("check", "job"):
        print(f"{what} says {FAULTS.get(what, 0)}", file=sys.stderr)
        return FAULTS.get(what, 0)
    if Path(os.environ["MARKS"], "crash").exists():
        print("There is a mark to crash.", file=sys.stderr)
        return 7
    if what == "worker":
        signal.pause()
    if "exits" in FAULTS:
        print("It ends before it listens.", file=sys.stderr)
        return FAULTS["exits"]
    if FAULTS.get("deaf"):
        signal.pause()
    time.sleep(FAULTS.get("start", 0))
    fill(FAULTS.get("eats", 0))
    serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "web"))
