"""`lapwing image copy` beside crane, skopeo and regctl, between two registries of this machine.

    python -m benchmarks.image_copy [--rounds 3] [--gigabytes 2] [--output json]

Both registries are Debian's docker-registry, with their files in one temporary folder. Each tool
copies each image into a separate repository; the tools take turns, and another one begins in every
round. Reported is the median of the rounds: wall time of the whole command, with its start; CPU
time of the command (not of the registries); its peak memory. A peer that is not on the PATH is
named as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.registries import Server, docker_registry

Command = Callable[[str, str], list[str]]
"""What copies one reference to another."""

CASES = {
    "large": "an image of 4 layers, {gigabytes:g} GB",
    "small": "an image of 60 layers of 200 kB",
    "index": "an index of 4 platforms, 5 layers of 1 MB each",
    "large-again": "a second tag of the copied image of 4 layers",
    "small-again": "a second tag of the copied image of 60 layers",
    "index-again": "a second tag of the copied index",
}


@dataclass(frozen=True)
class Run:
    """One command: seconds of wall and CPU time, and mebibytes of peak memory."""

    wall: float
    cpu: float
    memory: float


def tools(hosts: list[str]) -> dict[str, Command]:
    """The tools on the PATH; those that are missing are named on stderr."""
    lapwing = str(Path(sys.executable).with_name("lapwing"))
    found: dict[str, Command] = {"lapwing": lambda a, b: [lapwing, "image", "copy", a, b]}
    plain = [part for host in hosts for part in ("--host", f"reg={host},tls=disabled")]
    peers: dict[str, Command] = {
        "crane": lambda a, b: ["crane", "copy", a, b],
        "skopeo": lambda a, b: [
            "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
            f"docker://{a}", f"docker://{b}",
        ],
        "regctl": lambda a, b: ["regctl", *plain, "image", "copy", a, b],
    }  # fmt: skip
    for name, command in peers.items():
        if shutil.which(name):
            found[name] = command
        else:
            print(f"{name} is not on the PATH: not measured.", file=sys.stderr)
    return found


LAUNCHER = """
import json, os, sys, time
result = int(sys.argv.pop(1))
os.set_inheritable(result, False)
began = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - began
with open(result, "w") as out:
    json.dump([os.waitstatus_to_exitcode(status), wall,
               usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024], out)
"""
"""Starts the command from a small process: a child's peak memory begins at its parent's size."""


def run(arguments: list[str]) -> Run:
    """Run a command and measure it. Ends the benchmark if it fails."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(reading) as result:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, str(writing), *arguments],
            stdout=output,
            stderr=output,
            env=environment(),
            pass_fds=(writing,),
        )
        os.close(writing)
        figures = result.read()
        process.wait()
        status, wall, cpu, memory = json.loads(figures)
        if status:
            output.seek(0)
            sys.exit(f"{' '.join(arguments)} failed:\n{output.read().decode(errors='replace')}")
    return Run(wall, cpu, memory)


def environment() -> dict[str, str]:
    """The user's environment, with the bytecode that any installation of Python programs has."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def fill(source: Server, gigabytes: float) -> None:
    """Put the images into the source."""
    size = int(gigabytes * 1e9 / 4)
    source.push_image("large", "1", [os.urandom(size) for _ in range(4)])
    source.push_image("small", "1", [os.urandom(200_000) for _ in range(60)])
    platforms = ("amd64", "arm64", "s390x", "riscv64")
    children = [
        source.push_image("index", name, [os.urandom(1_000_000) for _ in range(5)], name)
        for name in platforms
    ]
    source.push_index("index", "1", children)


def measure(rounds: int, gigabytes: float, folder: Path) -> dict[str, dict[str, list[Run]]]:
    """Every case by every tool, alternating."""
    program = shutil.which("docker-registry")
    if program is None:
        sys.exit("docker-registry is not on the PATH: nothing can be measured.")
    results: dict[str, dict[str, list[Run]]] = {case: {} for case in CASES}
    with docker_registry(program, folder / "source") as source:
        fill(source, gigabytes)
        for number in range(rounds):
            # A new target for each round: skopeo remembers what it pushed where, and mounts it.
            with docker_registry(program, folder / f"target{number}") as target:
                copiers = tools([source.host, target.host])
                names = deque(copiers)
                names.rotate(-number)
                measure_round(source, target, {name: copiers[name] for name in names}, results)
            shutil.rmtree(folder / f"target{number}")
    return results


def measure_round(
    source: Server,
    target: Server,
    copiers: dict[str, Command],
    results: dict[str, dict[str, list[Run]]],
) -> None:
    """Every case by every tool, once."""
    for case in CASES:
        image = case.removesuffix("-again")
        tag = "2" if case.endswith("-again") else "1"
        for name, command in copiers.items():
            goal = f"{name}/{image}"
            done = run(command(f"{source.host}/{image}:1", f"{target.host}/{goal}:{tag}"))
            assert target.manifest(goal, tag) is not None
            results[case].setdefault(name, []).append(done)
            print(f"{case} {name} {done.wall:.2f} s", file=sys.stderr)


def medians(runs: list[Run]) -> Run:
    """The median of each measure."""
    return Run(
        *(statistics.median(getattr(r, key) for r in runs) for key in ("wall", "cpu", "memory"))
    )


def table(results: dict[str, dict[str, list[Run]]], gigabytes: float) -> str:
    """The medians as a table in Markdown, with the ratio to Lapwing's wall time."""
    lines = [
        "| case | tool | wall s | CPU s | peak MiB | wall / lapwing |",
        "|---|---|---|---|---|---|",
    ]
    for case, by_tool in results.items():
        lapwing = medians(by_tool["lapwing"])
        for name, runs in by_tool.items():
            m = medians(runs)
            lines.append(
                f"| {CASES[case].format(gigabytes=gigabytes)} | {name} | {m.wall:.2f} | "
                f"{m.cpu:.2f} | {m.memory:.0f} | {m.wall / lapwing.wall:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--output", choices=["text", "json"], default="text")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="image-copy-") as folder:
        results = measure(given.rounds, given.gigabytes, Path(folder))
    if given.output == "json":
        rows = {
            c: {n: [asdict(r) for r in runs] for n, runs in t.items()} for c, t in results.items()
        }
        print(json.dumps(rows, indent=2))
    else:
        print(table(results, given.gigabytes))


if __name__ == "__main__":
    main()
