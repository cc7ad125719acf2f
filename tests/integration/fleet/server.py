"""A small server that answers as Fleet does around its first set-up.

Sources: Fleet's server/service/endpoint_setup.go (what is asked, what is answered), handler.go
(WithSetup: until it is set up, every other path is 404; after that, the path of set-up is),
server/fleet/users.go (the rule for passwords), app.go (EnrollSecret), sessions.go (login), and the
form of its errors, `{"message", "errors": [{"name", "reason"}]}`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.command_lines import command_lines

MADE_UP = "made-up-by-fleet-itself-in-set-up"
TOKEN = "c2Vzc2lvbg+/token=="
RULE = (
    "Password does not meet required criteria: Must include 12 characters, at least 1 number "
    "(e.g. 0 - 9), and at least 1 symbol (e.g. &*#)."
)
Answer = tuple[int, Any]


@dataclass
class Fleet:
    """What Fleet knows. `clock` is the second that the next thing is made at; `broken` gives the
    answers of paths that fail; `lines` are the command lines seen while requests were under way."""

    user: dict[str, str] | None = None
    admin: dict[str, Any] = field(default_factory=dict)
    organization: str = ""
    server_url: str = ""
    secrets: list[dict[str, str]] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    clock: int = 0
    broken: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    changes: int = 0
    lines: set[str] = field(default_factory=set)
    ready_after: int = 0

    def now(self) -> str:
        """The moment, as Fleet writes it; each is a second later."""
        self.clock += 1
        return f"2026-11-25T09:{self.clock // 60:02}:{self.clock % 60:02}Z"

    def keep(self, *secrets: str) -> None:
        """Replace the enroll secrets, as Fleet and people do it."""
        self.changes += 1
        self.secrets = [{"secret": s, "created_at": self.now()} for s in secrets]

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> Answer:
        """The status and the body for one request."""
        self.asked.append(f"{method} {path}")
        if path == "/healthz":
            self.ready_after -= 1
            return (500, None) if self.ready_after >= 0 else (200, {})
        if path in self.broken:
            return self.broken[path]
        routes: dict[str, Callable[..., Answer]] = {"POST /api/v1/setup": self._setup}
        if self.user is not None:
            routes = {
                "POST /api/v1/fleet/login": self._login,
                "POST /api/v1/fleet/logout": self._logout,
                "GET /api/v1/fleet/spec/enroll_secret": self._list,
                "POST /api/v1/fleet/spec/enroll_secret": self._apply,
            }
        route = routes.get(f"{method} {path}")
        if route is None:
            return 404, {"message": "Resource Not Found", "errors": []}
        if path not in ("/api/v1/setup", "/api/v1/fleet/login") and token not in self.sessions:
            return 401, {"message": "Authentication required", "errors": []}
        try:
            given = json.loads(body) if body else None
        except ValueError as error:
            return 400, {
                "message": "Bad request",
                "errors": [{"name": "base", "reason": str(error)}],
            }
        return route(given)

    def _setup(self, given: Any) -> Answer:
        self.keep(MADE_UP)
        admin = given["admin"]
        assert set(admin) == {"name", "email", "password"}
        password = admin["password"]
        kinds = [unicodedata.category(c) for c in password]
        symbol, number = any(k[0] in "PS" for k in kinds), any(k[0] == "N" for k in kinds)
        if len(password.encode()) < 12 or not symbol or not number:
            reason = {"name": "password", "reason": RULE}
            return 422, {"message": "Validation Failed", "errors": [reason]}
        self.user = {"email": admin["email"], "password": password}
        self.admin = {"created_at": self.now(), "id": 1, "name": admin["name"]}
        self.organization = given["org_info"]["org_name"]
        self.server_url = given["server_url"]
        return 200, {
            "admin": self.admin,
            "org_info": given["org_info"],
            "server_url": self.server_url,
            "osquery_enroll_secret": None,
            "token": self._session(),
        }

    def _session(self) -> str:
        self.sessions.add(TOKEN)
        return TOKEN

    def _login(self, given: Any) -> Answer:
        if given != self.user:
            reason = {"name": "base", "reason": "Authentication failed"}
            return 401, {"message": "Authentication failed", "errors": [reason]}
        return 200, {"user": self.admin, "available_teams": [], "token": self._session()}

    def _logout(self, _: Any) -> Answer:
        self.sessions.clear()
        return 200, {}

    def _list(self, _: Any) -> Answer:
        return 200, {"spec": {"secrets": self.secrets}}

    def _apply(self, given: Any) -> Answer:
        self.keep(*(s["secret"] for s in given["spec"]["secrets"]))
        return 200, {}

    def look(self) -> None:
        """Note the command line of every process that is there."""
        self.lines |= {e.replace(b"\0", b" ").decode(errors="replace") for e in command_lines()}


@contextmanager
def serving(fleet: Fleet) -> Iterator[str]:
    """The address at which it answers."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            fleet.look()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            status, answer = fleet.answer(self.command, self.path, body, said)
            text = answer if isinstance(answer, str) else json.dumps(answer, indent=2)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = handle_any

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
