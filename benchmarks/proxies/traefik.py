"""Traefik: the file of its file provider is replaced, which it watches.

Its default is to take at most one new configuration in 2 s (`providersThrottleDuration`), so
switches that follow each other faster wait for it. Source: doc.traefik.io, "File provider". The
file is JSON, which YAML contains.
"""

from __future__ import annotations

import json

from benchmarks.proxies.recipe import Prepared, Recipe, Setting, replace


def prepare(program: str, setting: Setting) -> Prepared:
    """Every setting of the process is its default, but for what calls home."""
    folder = setting.folder / "watched"
    folder.mkdir()
    path = folder / "routes.yml"

    def write(version: str) -> None:
        services = {
            name: {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{port}"}]}}
            for name, port in setting.ports.items()
        }
        files = {"certFile": str(setting.certificate), "keyFile": str(setting.key)}
        routers = {
            "main": {"rule": "PathPrefix(`/`)", "service": version, "tls": {}},
            "fast": {"rule": "Path(`/fast`)", "service": "fast", "tls": {}},
        }
        document = {
            "http": {"routers": routers, "services": services},
            "tls": {"stores": {"default": {"defaultCertificate": files}}},
        }
        replace(path, json.dumps(document))

    write("a")
    command = [
        program,
        f"--entrypoints.clients.address=127.0.0.1:{setting.port}",
        f"--providers.file.filename={path}",
        "--providers.file.watch=true",
        "--log.level=ERROR",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    return Prepared(command, lambda version, _pid: write(version))


TRAEFIK = Recipe("Traefik", "traefik", "file provider", ["version"], prepare)
