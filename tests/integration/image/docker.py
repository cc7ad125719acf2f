"""Docker's engine for a test, and base images made of the programs of this machine.

The engine is the tests' own: its files are in a temporary folder, its bridge is in a network of the
tests (`tests.networks`), in which everything that uses it has to run, and it ends with the tests.
No image of a publisher can be pulled in a test, so a base has this machine's Python and Node under
the names of the official images.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.needs import require
from tests.networks import private_network
from tests.registries import docker_registry

START_S = 60.0
SKIPPED = {"__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip"}
SHELL = ("sh", "dirname", "realpath", "sleep")
RUNTIME = """
import json, os, pathlib, sys
if "--bundle" in sys.argv:
    file = pathlib.Path(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    config = json.loads(file.read_text())
    config["process"].pop("rlimits", None)
    file.write_text(json.dumps(config))
os.execvp("runc", ["runc", *sys.argv[1:]])
"""
"""Podman raises the limits of containers, for which root may lack CAP_SYS_RESOURCE in a test."""


@dataclass
class Docker:
    """A running engine; `environ` tells the docker command where it is."""

    environ: dict[str, str]

    def responds(self) -> bool:
        """Whether the engine answers."""
        environ = {**os.environ, **self.environ}
        asked = subprocess.run(["docker", "info"], env=environ, capture_output=True, check=False)
        return asked.returncode == 0

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Run a docker command; returns what it prints."""
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == status, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()


class Daemon:
    """An engine that can be ended and started again; its files and its socket stay.

    It changes no firewall rule: published ports are forwarded by its proxy. Its mounts are in a
    namespace of its own: one that another namespace has copied cannot be removed.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.folder = folder
        socket = f"unix://{folder}/docker.sock"
        self.docker = Docker({"DOCKER_HOST": socket})
        arguments = _podman if Path(program).name == "podman" else _dockerd
        self._arguments = [
            *("unshare", "--mount", "--propagation", "slave"),
            *arguments(program, folder, socket),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the engine and wait until it responds."""
        with (self.folder / "log").open("ab") as log:
            # Podman's monitor of a container writes a file into its working directory.
            self._process = subprocess.Popen(
                self._arguments, stdout=log, stderr=log, cwd=self.folder
            )
        until = time.monotonic() + START_S
        while not self.docker.responds():
            if self._process.poll() is not None or time.monotonic() > until:
                message = "Docker's engine does not start on this machine"
                if "docker" in os.environ.get("LAPWING_TEST_REQUIRE", "").split(","):
                    pytest.fail(f"{message}: {(self.folder / 'log').read_text()[-2000:]}")
                pytest.skip(message)
            time.sleep(0.2)

    def stop(self) -> None:
        """End the engine, and with it its containers."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)


def _dockerd(program: str, folder: Path, socket: str) -> list[str]:
    return [
        *(program, "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "pid"), "--host", socket),
        *("--iptables=false", "--ip6tables=false", "--ip-masq=false"),
    ]


def _podman(program: str, folder: Path, socket: str) -> list[str]:
    """Podman has no daemon: its service runs containers for clients of Docker's API."""
    plain = folder / "registries.conf"  # Docker accepts registries on loopback without TLS.
    plain.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    runtime = folder / "runtime"
    runtime.write_text(f"#!{sys.executable}\n{RUNTIME}")
    runtime.chmod(0o755)
    settings = folder / "containers.conf"
    settings.write_text(
        f'[engine]\nruntime = "plain"\n[engine.runtimes]\nplain = [{json.dumps(str(runtime))}]\n'
    )
    return [
        *("env", f"CONTAINERS_REGISTRIES_CONF={plain}", f"CONTAINERS_CONF={settings}"),
        *(program, "--root", str(folder / "data"), "--runroot", str(folder / "exec")),
        *("--tmpdir", str(folder / "tmp"), "--cgroup-manager", "cgroupfs", "--events-backend=file"),
        *("system", "service", "--time=0", socket),
    ]


@contextlib.contextmanager
def daemon(program: str) -> Iterator[Daemon]:
    """Run an engine, and let this thread use its network meanwhile.

    The test is skipped, or fails if docker is required, where the engine cannot start.
    """
    folder = Path(tempfile.mkdtemp(prefix="ld-"))  # Its sockets need a short path.
    running = Daemon(program, folder)
    with private_network():
        try:
            running.start()
            yield running
        finally:
            running.stop()
            shutil.rmtree(folder, ignore_errors=True)


def python_files() -> dict[str, Path]:
    """Return the files of this machine's Python by their path in an image."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = Path(sys.base_prefix, "lib", version)
    files = {f"usr/local/bin/{version}": Path(sys.base_prefix, "bin", version)}
    for found in library.rglob("*"):
        inner = found.relative_to(library)
        # The static library has two thirds of all bytes, and only a compiler needs it.
        if found.is_file() and found.suffix != ".a" and not SKIPPED.intersection(inner.parts):
            files[f"usr/local/lib/{version}/{inner}"] = found
    return files


def write_base(
    path: Path, files: dict[str, Path], programs: Iterable[str], users: Iterable[str] = ()
) -> None:
    """Write an archive with files, programs of this machine, and the libraries they need.

    `users` are further programs that will use libraries of the archive.
    """
    for program in programs:
        place = shutil.which(program)
        assert place is not None, program
        files[f"usr/local/bin/{program}"] = Path(place).resolve()
    compiled = [p for p in files.values() if p.suffix == ".so" or os.access(p, os.X_OK)]
    ldd = ["ldd", *map(str, compiled), *users]
    listed = subprocess.run(ldd, capture_output=True, text=True, check=False)
    for word in listed.stdout.split():
        if word.startswith("/") and not word.endswith(":"):
            files[word.lstrip("/")] = Path(word).resolve()
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
        shell = tarfile.TarInfo("bin/sh")
        shell.type, shell.linkname = tarfile.SYMTYPE, "/usr/local/bin/sh"
        archive.addfile(shell)
        for name, place in files.items():
            if name != "bin/sh":
                archive.add(place, name, recursive=False)


@contextlib.contextmanager
def python_base(docker: Docker, folder: Path) -> Iterator[str]:
    """Make a base image with Python; yields its name, in a registry and in the engine."""
    folder.mkdir(exist_ok=True)
    write_base(folder / "base.tar", python_files(), SHELL)
    with docker_registry(require("registry"), folder / "registry") as server:
        name = f"{server.host}/python:slim"
        variables = ("PATH=/usr/local/bin", f"PYTHON_VERSION={platform.python_version()}")
        changes = [f"--change=ENV {variable}" for variable in variables]
        docker("import", *changes, str(folder / "base.tar"), name)
        docker("push", "--quiet", name)
        yield name


def write_complete_base(path: Path, wheels: Path) -> None:
    """Write an archive with Python, pip and its packages, Node and npm, to build Dockerfiles on.

    Its `apt-get` installs nothing: no package of the tests needs a compiler.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    pip = Path(str(importlib.metadata.distribution("pip").locate_file("pip")))
    npm = Path(require("npm")).resolve().parents[1]
    files = python_files()
    folders = {f"usr/local/lib/{version}/site-packages/pip": pip, "usr/lib/npm": npm}
    for target, folder in {**folders, "wheels": wheels}.items():
        found = [each for each in folder.rglob("*") if each.is_file() and each.name[:5] != "caddy"]
        files |= {f"{target}/{each.relative_to(folder)}": each for each in found}
    scripts = {
        "apt-get": "true",
        "pip": f"exec {version} -m pip",
        "npm": "exec node /usr/lib/npm/bin/npm-cli.js",
    }
    for name, command in scripts.items():
        script = path.with_name(name)
        script.write_text(f'#!/bin/sh\n{command} "$@"\n')
        script.chmod(0o755)
        files[f"usr/local/bin/{name}"] = script
    programs = ("sh", "dirname", "realpath", "rm", Path(require("node")).name)
    write_base(path, files, programs, [find_uv_bin()])
