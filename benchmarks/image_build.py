"""From a changed line to a pushed image: `lapwing image build --push` and `docker build`, push.

    python -m benchmarks image_build [--rounds 5]

One Python service without dependencies, on one base image with this machine's Python, in one
registry. In every round a line is changed and committed, and each contender builds and pushes the
image. The Dockerfile only copies the source, which is the minimum after a changed line. Docker's
engine runs in a separate network namespace, so the benchmark needs root. CPU is the time of the
command, for Docker including the engine. Lapwing's byte code is cached, as in an installed package.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.installation import Installation
from tests.integration.image.conftest import PYTHON, VERSION
from tests.integration.image.docker import Docker, daemon, python_files, write_base
from tests.registries import docker_registry

STACK = """\
stack: bench
registry: {host}/bench
services:
  api: {{build: {{path: ./api, base: '{base}'}}, command: python app.py, route: /}}
"""
DOCKERFILE = 'FROM {base}\nWORKDIR /app\nCOPY . .\nCMD ["python3", "app.py"]\n'


def main() -> None:
    """Measure, and print a table of medians."""
    options = argparse.ArgumentParser(prog="benchmarks image_build", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    engine, registry = shutil.which("dockerd"), shutil.which("docker-registry")
    if engine is None or registry is None or os.geteuid() != 0:
        sys.exit("This benchmark needs root, dockerd and docker-registry.")
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, daemon(engine) as running:
        folder = Path(name)
        with docker_registry(registry, folder / "registry") as server:
            base = f"{server.host}/library/python:{VERSION}-slim"
            write_base(folder / "base.tar", python_files(), ("sh",))
            change = " ".join(f"{key}={value}" for key, value in PYTHON.items())
            running.docker("import", "--change", f"ENV {change}", str(folder / "base.tar"), base)
            running.docker("push", "--quiet", base)
            environ = {**running.docker.environ, "PYTHONPYCACHEPREFIX": str(folder / "pyc")}
            where = Installation(folder / "stack", **environ)
            where.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            where.write({"lapwing.yaml": STACK.format(host=server.host, base=base)})
            where.write({"api/requirements.txt": "", "api/app.py": "print(0)"})
            where.write({"api/Dockerfile": DOCKERFILE.format(base=base)})
            image = f"{server.host}/bench/docker"
            contenders = {
                "lapwing": lambda: where.run("image", "build", "--push"),
                "docker build": lambda: build(running.docker, where, image),
            }
            measure(where, contenders, rounds)
    print(f"\nload average {before:.1f} before, {os.getloadavg()[0]:.1f} after")


def build(docker: Docker, where: Installation, image: str) -> None:
    """Build with Docker and push."""
    docker.environ["DOCKER_BUILDKIT"] = "0"  # BuildKit needs a plug-in that Debian lacks.
    docker("build", "--quiet", "--tag", image, str(where.folder / "api"))
    docker("push", "--quiet", image)


def measure(where: Installation, contenders: dict[str, Callable[[], object]], rounds: int) -> None:
    """Change a line, then run each contender; print the medians without the first round."""
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        where.write({"api/app.py": f"print({number})"})
        for name, run in contenders.items():
            started, used = time.monotonic(), cpu()
            run()
            if number:
                walls[name].append(time.monotonic() - started)
                cpus[name].append(cpu() - used)
    print(f"{'':18}  wall s (max)     CPU s")
    for name, found in walls.items():
        if found:
            wall, used = statistics.median(found), statistics.median(cpus[name])
            print(f"{name:18}  {wall:5.2f} ({max(found):5.2f})  {used:5.2f}")


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
