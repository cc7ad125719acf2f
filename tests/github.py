"""A server that behaves as GitHub's REST API does for releases, held to GitHub's own description.

Every request is checked against the published OpenAPI document (path, method, parameters, body),
and so is every answer that the server gives, so neither side can drift from it. What the document
says in prose is played: drafts are found in the list only, a published release of a repository with
immutable releases takes no more files, an upload that broke off leaves a file in state `starter`.
It serves git over HTTP, too, through git's own http-backend.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema

TOKEN = "ghp_a-token-of-a-test"
WHEN = "2026-01-01T00:00:00Z"
USER = {
    "login": "acme", "id": 1, "node_id": "U", "gravatar_id": "", "type": "User",
    "site_admin": False,
    **dict.fromkeys(
        ("avatar_url", "url", "html_url", "followers_url", "following_url", "gists_url",
         "starred_url", "subscriptions_url", "organizations_url", "repos_url", "events_url",
         "received_events_url"), "https://example.com/u"),
}  # fmt: skip


def _type(validator: Any, types: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """OpenAPI 3.0's `nullable`."""
    if instance is None and schema.get("nullable"):
        return
    yield from jsonschema.Draft4Validator.VALIDATORS["type"](validator, types, instance, schema)


Validator = jsonschema.validators.extend(jsonschema.Draft4Validator, {"type": _type})


class Description:
    """GitHub's description of its API."""

    def __init__(self, file: Path) -> None:
        self.document = json.loads(file.read_bytes())
        self.paths = [
            (re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path))), operations)
            for path, operations in self.document["paths"].items()
            if "/releases" in path or path.endswith("/commits/{commit_sha}/pulls")
        ]

    def operation(self, method: str, path: str) -> dict[str, Any]:
        found = [ops for pattern, ops in self.paths if pattern.fullmatch(path)]
        assert found, f"GitHub has no {path}"
        assert method.lower() in found[0], f"GitHub has no {method} {path}"
        operation: dict[str, Any] = found[0][method.lower()]
        return operation

    def example(self, name: str) -> Any:
        return self.document["components"]["examples"][name]["value"]

    def check_request(
        self, operation: dict[str, Any], query: dict[str, str], kind: str, body: bytes
    ) -> None:
        known = {p["name"]: p for p in map(self._resolved, operation.get("parameters", []))}
        asked = {name: p for name, p in known.items() if p["in"] == "query"}
        assert set(query) <= set(asked), f"unknown parameters: {set(query) - set(asked)}"
        for name, parameter in asked.items():
            assert name in query or not parameter.get("required"), f"{name} is missing"
        wanted = operation.get("requestBody")
        if wanted is None:
            assert not body
            return
        assert kind in wanted["content"] or "application/octet-stream" in wanted["content"], kind
        if kind == "application/json":
            self._validate(wanted["content"][kind]["schema"], json.loads(body))

    def check_answer(self, operation: dict[str, Any], status: int, answer: Any) -> None:
        # The description tells of the state `starter` in prose, and its list of states lacks it.
        answer = json.loads(json.dumps(answer).replace('"starter"', '"open"'))
        told = self._resolved(operation["responses"][str(status)])
        content = told.get("content")
        if content:
            self._validate(content["application/json"]["schema"], answer)

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in part:
            return part
        found: Any = self.document
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        resolved: dict[str, Any] = found
        return resolved

    def _validate(self, schema: dict[str, Any], instance: Any) -> None:
        whole = {**schema, "components": self.document["components"]}
        Validator(whole).validate(instance)


class GitHub:
    """The server at `address`. `wrong` has every request that GitHub's description does not
    allow."""

    def __init__(self, description: Description, repositories: Path) -> None:
        self.description = description
        self.repositories = repositories
        self.releases: list[dict[str, Any]] = []
        self.immutable = False
        self.break_upload = False
        self.wrong: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.logins: set[str] = set()
        self.merged: dict[str, str] = {}
        """The branch of the pull request that brought a commit."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._next = 100

    def repository(self, owner: str, name: str) -> str:
        """An empty repository; its address for git."""
        folder = self.repositories / owner / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
        config = ["git", "-C", str(folder), "config", "http.receivepack", "true"]
        subprocess.run(config, check=True)
        return f"{self.address}/{owner}/{name}.git"

    def id(self) -> int:
        self._next += 1
        return self._next

    def release(self, about: dict[str, Any], path: str) -> dict[str, Any]:
        number = self.id()
        url = f"{self.address}/api/v3{path}/{number}"
        return {
            "id": number, "node_id": "R", "url": url, "assets_url": f"{url}/assets",
            "html_url": f"{self.address}/r/{number}",
            "upload_url": f"{self.address}/api/uploads{path}/{number}/assets{{?name,label}}",
            "tarball_url": None, "zipball_url": None, "created_at": WHEN, "published_at": None,
            "author": USER, "assets": [], "target_commitish": about.get("target_commitish", "main"),
            "tag_name": about["tag_name"], "name": about.get("name"), "body": about.get("body"),
            "draft": about.get("draft", False), "prerelease": about.get("prerelease", False),
        }  # fmt: skip

    def asset(self, name: str, kind: str, content: bytes, state: str) -> dict[str, Any]:
        number = self.id()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if state == "uploaded" else None
        return {
            "id": number, "node_id": "A", "name": name, "label": None, "content_type": kind,
            "size": len(content) if state == "uploaded" else 0, "digest": digest, "state": state,
            "url": f"{self.address}/a/{number}",
            "browser_download_url": f"{self.address}/d/{number}",
            "download_count": 0, "uploader": USER, "created_at": WHEN, "updated_at": WHEN,
        }  # fmt: skip

    def answer(self, method: str, path: str, query: dict[str, str], kind: str, body: bytes) -> Any:
        """Status and answer for a request of the releases' interface, or for pull requests."""
        commit = re.fullmatch(r"/repos/[^/]+/[^/]+/commits/(\w+)/pulls", path)
        if commit:
            [example] = self.description.example("pull-request-simple-items")
            branch = self.merged.get(commit[1])
            example = {**example, "requested_teams": []}  # One there is against the description.
            unmerged = {**example, "merged_at": None}
            head = {**example["head"], "ref": branch}
            return 200, [unmerged, *([{**example, "head": head}] if branch else [])]
        root = re.match(r"/repos/[^/]+/[^/]+/releases", path)
        assert root, path
        rest = path[root.end() :].strip("/").split("/")
        given = json.loads(body) if kind == "application/json" and body else {}
        if method == "GET" and rest[0] == "tags":
            shown = [r for r in self.releases if r["tag_name"] == rest[1] and not r["draft"]]
            return (200, shown[0]) if shown else (404, _told("Not Found"))
        if method == "GET":
            size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
            return 200, self.releases[::-1][(page - 1) * size : page * size]
        if method == "POST" and rest == ["generate-notes"]:
            return 200, {"name": given["tag_name"], "body": ""}
        if method == "POST" and rest == [""]:
            self.releases.append(self.release(given, root[0]))
            return 201, self.releases[-1]
        if method == "DELETE":
            for release in self.releases:
                release["assets"] = [a for a in release["assets"] if a["id"] != int(rest[1])]
            return 204, None
        release = next(r for r in self.releases if r["id"] == int(rest[0]))
        if method == "PATCH":
            release.update(given)
            release["published_at"] = WHEN
            return 200, release
        return self._upload(release, query["name"], kind, body)

    def _upload(self, release: dict[str, Any], name: str, kind: str, body: bytes) -> Any:
        if self.immutable and not release["draft"]:
            return 422, _told("Cannot upload assets to an immutable release.")
        if any(a["name"] == name for a in release["assets"]):
            return 422, _told("Validation Failed")
        if self.break_upload:
            self.break_upload = False
            release["assets"].append(self.asset(name, kind, b"", "starter"))
            return 502, _told("Bad Gateway")
        release["assets"].append(self.asset(name, kind, body, "uploaded"))
        return 201, release["assets"][-1]


@contextmanager
def github(description: Description, root: Path) -> Iterator[GitHub]:
    """A server for as long as the block runs."""
    served = GitHub(description, root)
    thread = threading.Thread(target=served.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        served.server.server_close()
        thread.join(10)


def _told(message: str) -> dict[str, str]:
    return {"message": message, "documentation_url": "https://docs.github.com/rest"}


def _handler(owner: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        forge = owner

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    forge: GitHub

    def log_message(self, *_: object) -> None:
        pass

    def serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if parts.path.startswith("/api/"):
            self._api(parts.path, parts.query, body)
        else:
            self._git(parts.path, parts.query, body)

    do_GET = do_POST = do_PATCH = do_DELETE = serve

    def _api(self, path: str, query: str, body: bytes) -> None:
        bare = re.sub(r"^/api/(v3|uploads)", "", path)
        self.forge.asked.append((self.command, bare))
        asked = {k: v[0] for k, v in parse_qs(query).items()}
        kind = self.headers.get("Content-Type", "")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, _told("Bad credentials"))
            return
        try:
            assert self.headers["Accept"] == "application/vnd.github+json"
            assert self.headers["X-GitHub-Api-Version"] == "2022-11-28"
            operation = self.forge.description.operation(self.command, bare)
            self.forge.description.check_request(operation, asked, kind, body)
            status, answer = self.forge.answer(self.command, unquote(bare), asked, kind, body)
            if status < 300:
                self.forge.description.check_answer(operation, status, answer)
        except (AssertionError, jsonschema.ValidationError, KeyError) as error:
            self.forge.wrong.append(f"{self.command} {self.path}: {error!r}"[:2000])
            status, answer = 400, _told("wrong")
        self._say(status, answer)

    def _say(self, status: int, answer: Any) -> None:
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _git(self, path: str, query: str, body: bytes) -> None:
        """git's own server, with the login that GitHub wants for a push."""
        login = self.headers.get("Authorization", "")
        wanted = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        if "receive-pack" in path + query and login != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="GitHub"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.forge.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "acme",
            "REMOTE_ADDR": "127.0.0.1",
        }
        said = subprocess.run(
            ["git", "http-backend"], input=body, env=environ, capture_output=True, check=True
        ).stdout
        head, _, data = said.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
