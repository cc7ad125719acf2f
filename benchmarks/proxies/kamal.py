"""kamal-proxy: `kamal-proxy deploy` with another target, which returns when the old one is drained.

Its options are read in its public documentation. Where this was written the program could not be
had, so this module has not been run yet.
"""

from __future__ import annotations

import os
import subprocess

from benchmarks.proxies.recipe import Prepared, Recipe, Setting, free_port


def prepare(program: str, setting: Setting) -> Prepared:
    """Its socket and its state are in the folder."""
    folder = setting.folder

    def deploy(service: str, port: int, *more: str) -> None:
        subprocess.run(
            [program, "deploy", service, "--target", f"127.0.0.1:{port}", *more],
            env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
            check=True,
            capture_output=True,
        )

    def change(version: str, _pid: int) -> None:
        files = ["--tls-certificate-path", str(setting.certificate)]
        files += ["--tls-private-key-path", str(setting.key)]
        health = ["--health-check-path", "/healthz"]
        deploy("main", setting.ports[version], "--host", "localhost", "--tls", *files, *health)
        if not (folder / "fast").exists():
            below = ["--path-prefix", "/fast", "--strip-path-prefix=false"]
            deploy("fast", setting.ports["fast"], "--host", "localhost", *below)
            (folder / "fast").touch()

    command = [program, "run", "--http-port", str(free_port()), "--https-port", str(setting.port)]
    return Prepared(command, change)


KAMAL = Recipe("kamal-proxy", "kamal-proxy", "deploy of another target", ["version"], prepare)
