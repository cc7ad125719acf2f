"""Caddy's JSON configuration for a static service, the same on a machine and in an image.

A page outlives a switch: a browser that loaded it from one release requests its scripts from the
next one. So a file with a content hash in its name that this release does not have is served from
the releases of the service that have been active in the last days: the hash guarantees its content.
On a machine they are folders beside the release, in an image layers below it.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

Json = dict[str, Any]
HASHED = r"^/assets/.*[-.][A-Za-z0-9_-]{8,}\.[A-Za-z0-9]+$"
"""Names with a content hash, as Vite and webpack generate them: such a file never changes."""


KEEP_ASSETS_S = 7 * 24 * 3600
"""How long the hashed files of a release are served after it was active."""
GZIPPED = ".gz"
"""The suffix of the compressed copy of a file. Copies in other formats are not served, because the
build cannot check their content. Source: caddyserver.com, JSON structure, http.precompressed."""
MIN_COMPRESSED_BYTES = 512
"""Smaller responses are not compressed."""
HIDDEN = ["lapwing.yaml", "lapwing.lock", "lapwing-release.yaml"]
"""Files that are never served, beside dotfiles: a site may be the top folder of a repository."""
IMMUTABLE = "public, max-age=31536000, immutable"
ASSET = (
    r"(?i)\.(avif|bmp|css|csv|eot|gif|gz|html?|ico|jpe?g|js|json|map|md|mjs|mp[34]|og[gv]|otf|pdf|png"
    r"|svg|tgz|ttf|txt|wasm|wav|web[mp]|webmanifest|woff2?|xml|zip)$"
)
"""Names of files, as opposed to a page such as `/users/jane.doe`."""
PATH = "{http.request.uri.path}"
FILES = [PATH, f"{PATH}/index.html", f"{PATH}.html"]


def config(
    root: PurePath, listen: str, *, spa: bool, prefix: str, recent: PurePath | None = None
) -> Json:
    """Return Caddy's configuration for the files in `root`, at the address `listen`.

    `/contact` is contact.html, `/about/` is about/index.html. With `spa`, any other path that is
    not the name of a file is answered with index.html, so deep links work, and a missing script is
    still a 404. `prefix` is removed from paths. `recent` holds the releases that have been active;
    without it, `root` has their hashed files, too.
    """
    return {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {
            "http": {
                "grace_period": "10s",
                "servers": {
                    "static": {
                        "listen": [listen],
                        "automatic_https": {"disable": True},
                        "protocols": ["h1"],
                        "routes": [
                            _headers("no-cache", None),
                            *_without_prefix(prefix),
                            *_pages(root, spa=spa),
                            _immutable(root),
                            _compressed(),
                            _no_dotfiles(),
                            *([_other_releases(root, recent)] if recent else []),
                            _well_known(root),
                            _file(root),
                        ],
                        "errors": {"routes": [_error_page(root)]},
                    }
                },
            }
        },
    }


def _without_prefix(prefix: str) -> list[Json]:
    if not prefix:
        return []
    location = {"Location": [f"{prefix}/{{http.request.uri.prefixed_query}}"]}
    redirect = {"handler": "static_response", "status_code": 308, "headers": location}
    return [
        {"match": [{"path": [prefix]}], "handle": [redirect], "terminal": True},
        {"handle": [{"handler": "rewrite", "strip_path_prefix": prefix}]},
    ]


def _pages(root: PurePath, *, spa: bool) -> list[Json]:
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


def _error_page(root: PurePath) -> Json:
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


def _immutable(root: PurePath) -> Json:
    match = {"path_regexp": {"pattern": HASHED}, "file": {"root": str(root), "try_files": [PATH]}}
    return _headers(IMMUTABLE, match)


def _compressed() -> Json:
    return {
        "handle": [
            {
                "handler": "encode",
                "encodings": {"zstd": {}, "gzip": {}},
                "prefer": ["zstd", "gzip"],
                "minimum_length": MIN_COMPRESSED_BYTES,
            }
        ]
    }


def _no_dotfiles() -> Json:
    """Answer 404 to a path with a name that begins with a dot, but for `/.well-known/`.

    `hide` of the file server cannot do that: it compares a pattern without a slash with each
    component of the whole path on the disk, so `.*` would hide every file below `~/.local`. Source:
    caddyserver.com, JSON structure, http.handlers.file_server.
    """
    top = {"path_regexp": {"pattern": r"^/\."}, "not": [{"path": ["/.well-known/*"]}]}
    return {
        "match": [top, {"path_regexp": {"pattern": r"^/.+/\."}}],
        "handle": [{"handler": "error", "status_code": 404}],
    }


def _other_releases(root: PurePath, recent: PurePath) -> Json:
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
            _file_server(recent),
        ],
        "terminal": True,
    }


def _well_known(root: PurePath) -> Json:
    """Serve the one hidden folder that is public. Source: RFC 8615."""
    return {
        "match": [{"path": ["/.well-known/*"]}],
        "handle": [
            {"handler": "rewrite", "strip_path_prefix": "/.well-known"},
            {"handler": "file_server", "root": str(root / ".well-known")},
        ],
        "terminal": True,
    }


def _file(root: PurePath) -> Json:
    return {"handle": [_file_server(root)], "terminal": True}


def _file_server(root: PurePath) -> Json:
    return {
        "handler": "file_server",
        "root": str(root),
        "hide": HIDDEN,
        "precompressed": {"gzip": {}},
    }
