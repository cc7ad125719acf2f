"""A collector of OTLP over HTTP in JSON, for tests."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from typing import Any


class Collector:
    """Accepts OTLP over HTTP; `answers` are the statuses and headers of the next responses."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refused = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0

    def start(self) -> None:
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if collector._server is None:  # Stopped: also established connections end.
                    self.close_connection = True
                    return
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                answer = (200, {}, b"{}")
                if collector.answers:
                    answer = collector.answers.pop(0)
                status, headers, text = answer
                if status == 200:
                    collector.requests.append(json.loads(body))
                    collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                else:
                    collector.refused += 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def records(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """The records with the attributes of their resource."""
        return [
            (
                {a["key"]: a["value"]["stringValue"] for a in each["resource"]["attributes"]},
                record,
            )
            for request in self.requests
            for each in request["resourceLogs"]
            for scope in each["scopeLogs"]
            for record in scope["logRecords"]
        ]

    def lines(self) -> list[str]:
        return [record["body"]["stringValue"] for _, record in self.records()]
