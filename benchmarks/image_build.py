"""From source to a pushed image: `lapwing image build --push` and `docker build`, push.

    python -m benchmarks image_build [--rounds 5]

One Flask service with the dependencies of the example, on one base image with this machine's
Python, in one registry. In every round each contender builds and pushes after one of these changes:

- `cold`: a changed line and a new repository, with no build cache; the base image is cached.
- `changed line`: one line of the source.
- `changed lock file`: the version of one dependency.

The Dockerfile installs the dependencies before it copies the source. Packages are read from a
folder, for Docker in the base image, so no download is measured. Docker's engine runs in a separate
network namespace, so the benchmark needs root. CPU is the time of the command, for Docker including
the engine; traffic is all bytes on that network, in both directions. Lapwing's byte code is cached,
as in an installed package.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.installation import Installation
from tests.integration.image.conftest import PYTHON, VERSION
from tests.integration.image.docker import Docker, daemon, python_files, write_base
from tests.needs import PARTS
from tests.registries import docker_registry

STACK = """\
stack: bench
registry: {host}/{repository}
services:
  api: {{build: {{path: ./api, base: '{base}'}}, command: python app.py, route: /}}
"""
DOCKERFILE = """\
FROM {base}
WORKDIR /app
COPY requirements.txt .
RUN python{version} /wheels/{pip}/pip install --quiet --no-index --find-links /wheels \
    --root-user-action ignore --target /opt/dependencies -r requirements.txt
ENV PYTHONPATH=/opt/dependencies
COPY . .
CMD ["python{version}", "app.py"]
"""
PACKAGES = (
    "blinker==1.9.0", "click==8.1.8", "dnspython==2.7.0", "flask==3.1.2", "gunicorn==23.0.0",
    "itsdangerous==2.2.0", "jinja2==3.1.6", "packaging==25.0", "pymongo==4.15.3", "werkzeug==3.1.3",
)  # fmt: skip
VERSIONS = ("2.1.2", "2.1.3", "2.1.4", "2.1.5", "3.0.0", "3.0.1", "3.0.2")
"""Versions of MarkupSafe, one for each changed lock file."""
CASES = ("cold", "changed line", "changed lock file")


def main() -> None:
    """Measure, and print a table of medians."""
    options = argparse.ArgumentParser(prog="benchmarks image_build", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    engine, registry = shutil.which("dockerd"), shutil.which("docker-registry")
    if engine is None or registry is None or os.geteuid() != 0:
        sys.exit("This benchmark needs root, dockerd and docker-registry.")
    if not 0 < rounds < len(VERSIONS):
        sys.exit(f"--rounds must be between 1 and {len(VERSIONS) - 1}.")
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packages = download(folder / "packages")
        with daemon(engine) as running, docker_registry(registry, folder / "registry") as server:
            bench = Bench(folder, running.docker, server.host, packages)
            bench.push_base()
            print(f"{'':18}{'':16} wall s (max)     CPU s   traffic kB")
            for case in CASES:
                bench.measure(case, rounds)
    print(f"\nload average {before:.1f} before, {os.getloadavg()[0]:.1f} after")


def download(folder: Path) -> Path:
    """Download the packages of all rounds, and pip for Docker's builds."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    wanted = [["pip", *PACKAGES], *([f"markupsafe=={version}"] for version in VERSIONS)]
    for names in wanted:
        subprocess.run([*pip, f"--dest={folder}", *names], check=True)
    return folder


class Bench:
    """One service, built by each contender."""

    def __init__(self, folder: Path, docker: Docker, host: str, packages: Path) -> None:
        self.folder, self.docker, self.host, self.packages = folder, docker, host, packages
        self.base = f"{host}/library/python:{VERSION}-slim"
        environ = {
            **docker.environ,
            "PYTHONPYCACHEPREFIX": str(folder / "pyc"),
            "UV_FIND_LINKS": str(packages),
            "UV_OFFLINE": "1",
        }
        self.where = Installation(folder / "stack", **environ)
        self.where.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.repository = ""
        self.changes = 0
        """Changes so far: each is another line."""

    def push_base(self) -> None:
        """Push a base image with this machine's Python and the packages."""
        files = python_files()
        files |= {f"wheels/{wheel.name}": wheel for wheel in self.packages.iterdir()}
        write_base(self.folder / "base.tar", files, ("sh",))
        change = " ".join(f"{key}={value}" for key, value in PYTHON.items())
        self.docker("import", "--change", f"ENV {change}", f"{self.folder}/base.tar", self.base)
        self.docker("push", "--quiet", self.base)
        pip = next(self.packages.glob("pip-*.whl")).name
        dockerfile = DOCKERFILE.format(base=self.base, version=VERSION, pip=pip)
        self.where.write({"api/Dockerfile": dockerfile, "api/app.py": "print(0)"})
        self._write_lock(0)
        self._write_stack("bench")

    def measure(self, case: str, rounds: int) -> None:
        """Change the source, then run each contender; print the medians without the first round."""
        contenders: dict[str, Callable[[], object]] = {
            "lapwing": lambda: self.where.run("image", "build", "--push"),
            "docker build": lambda: self._docker_build("docker", "0"),
        }
        if buildkit := PARTS["buildkit"]():
            contenders["BuildKit"] = lambda: self._docker_build(buildkit, "1")
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            self._change(case, number)
            for name, run in contenders.items():
                if case == "cold":
                    self._forget()
                started, used, sent = time.monotonic(), cpu(), traffic()
                run()
                wall = time.monotonic() - started
                found[name].append((wall, cpu() - used, traffic() - sent))
        for name, figures in found.items():
            walls, cpus, bytes_sent = zip(*figures[1:], strict=True)
            print(
                f"{case:18}{name:16} {statistics.median(walls):5.2f} ({max(walls):5.2f})  "
                f"{statistics.median(cpus):5.2f}   {statistics.median(bytes_sent) / 1000:9.0f}"
            )

    def _change(self, case: str, number: int) -> None:
        self.changes += 1
        if case == "changed lock file":
            self._write_lock(number)
        else:
            self.where.write({"api/app.py": f"print({self.changes})"})
        if case == "cold":
            self._write_stack(f"bench-{number}")

    def _forget(self) -> None:
        """Remove every cache of a build; the base image stays."""
        shutil.rmtree(self.where.home, ignore_errors=True)
        self.docker("builder", "prune", "--all", "--force")
        self.docker("image", "prune", "--all", "--force")
        self.docker("pull", "--quiet", self.base)

    def _write_lock(self, number: int) -> None:
        lines = [*PACKAGES, f"markupsafe=={VERSIONS[number]}"]
        self.where.write({"api/requirements.txt": "\n".join(lines) + "\n"})

    def _write_stack(self, repository: str) -> None:
        self.repository = repository
        stack = STACK.format(host=self.host, repository=repository, base=self.base)
        self.where.write({"lapwing.yaml": stack})

    def _docker_build(self, program: str, buildkit: str) -> None:
        environ = {**os.environ, **self.docker.environ, "DOCKER_BUILDKIT": buildkit}
        image = f"{self.host}/{self.repository}/docker-{buildkit}"
        for command in (
            (program, "build", "--quiet", "--tag", image, str(self.where.folder / "api")),
            (program, "push", "--quiet", image),
        ):
            subprocess.run(command, env=environ, check=True, capture_output=True)


def traffic() -> int:
    """Return the bytes that went through the loopback device of this thread's network so far."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == "lo:")


def cpu() -> float:
    """Return the CPU seconds of ended children and of all running descendants."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
    for process, used in ticks.items():
        above = parents[process]
        while above not in (0, 1, os.getpid()):
            above = parents.get(above, 0)
        if above == os.getpid():
            total += used / os.sysconf("SC_CLK_TCK")
    return total


if __name__ == "__main__":
    main()
