"""Rendering many services as manifests, beside `helm template` and `kustomize build`.

    python -m benchmarks render [--services 10 100 1000] [--rounds 5]

All three produce the same objects of the same stack: Helm from the chart that Lapwing writes,
kustomize from the files that Lapwing renders, in a kustomization that changes nothing.
Lapwing is measured twice: the rendering alone, from the models in memory to the text of the files;
and the whole command `lapwing render`, which also starts, reads and checks the stack file, and
writes, as the peers' commands do. The contenders take turns, and another one begins in every round.
A peer that is missing is named and left out.
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
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lapwing.render.helm import chart
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Stack

Act = Callable[[], object]
COLUMNS = ("rendering", "lapwing render", "helm template", "kustomize build")


def main() -> None:
    """Measure, and print a table of medians, in seconds."""
    options = argparse.ArgumentParser(prog="benchmarks render", description=__doc__)
    options.add_argument("--services", type=int, nargs="+", default=[10, 100, 1000])
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    for name in ("helm", "kustomize"):
        if shutil.which(name) is None:
            print(f"{name} is not on the PATH: not measured.", file=sys.stderr)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(
        f"{os.cpu_count()} cores, load average {load}; median of {given.rounds} rounds, seconds\n"
    )
    print(f"| services | objects | {' | '.join(COLUMNS)} | helm / rendering | helm / command |")
    print("|" + "---|" * (len(COLUMNS) + 4))
    for count in given.services:
        made = cluster_environment(count)
        with tempfile.TemporaryDirectory() as folder:
            acts = contenders(count, made, Path(folder))
            found = measure(acts, given.rounds)
        cells = [f"{found[name]:.3f}" if name in found else "-" for name in COLUMNS]
        own, command, helm = (found.get(name) for name in COLUMNS[:3])
        ratios = [f"{helm / each:.1f}" if helm and each else "-" for each in (own, command)]
        objects = len(render.manifests(made))
        print(f"| {' | '.join([str(count), str(objects), *cells, *ratios])} |", flush=True)


def contenders(count: int, made: ClusterEnvironment, folder: Path) -> dict[str, Act]:
    """What is measured, by name, with the files that it reads."""
    acts: dict[str, Act] = {"rendering": lambda: render.files(made)}
    stack = folder / "stack"
    stack.mkdir()
    (stack / "lapwing.yaml").write_text(json.dumps(written(count)))
    lapwing = str(Path(sys.executable).with_name("lapwing"))
    out = str(folder / "out")
    acts["lapwing render"] = command(lapwing, "-C", str(stack), "render", "-e", "live", "-o", out)
    if helm := shutil.which("helm"):
        write_chart(made, folder / "chart")
        acts["helm template"] = command(helm, "template", "many", str(folder / "chart"))
    if kustomize := shutil.which("kustomize"):
        plain = folder / "plain"
        plain.mkdir()
        files = render.files(made)
        for name, text in files.items():
            (plain / name).write_text(text)
        (plain / "kustomization.yaml").write_text(json.dumps({"resources": list(files)}))
        acts["kustomize build"] = command(kustomize, "build", str(plain))
    return acts


def command(*arguments: str) -> Act:
    """A command that has to work, with the bytecode that any installed Python program has."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(
        arguments,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ,
    )


def measure(acts: dict[str, Act], rounds: int) -> dict[str, float]:
    """The median of the seconds that each act takes, alternating."""
    found: dict[str, list[float]] = {name: [] for name in acts}
    names = deque(acts)
    for _ in range(rounds):
        for name in names:
            began = time.perf_counter()
            acts[name]()
            found[name].append(time.perf_counter() - began)
        names.rotate(-1)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def write_chart(made: ClusterEnvironment, folder: Path) -> None:
    """The chart of the same objects."""
    about = chart.About("many", "1.0.0", "1.0.0", "Many services.")
    # Helm refuses a file of more than 5 MiB, so each holds 100 objects at the most.
    parts = [
        chart.Templated(f"{at // 100}-{m.file}", m.tree)
        for at, m in enumerate(render.manifests(made))
    ]
    notes = {"made": [], "given": [], "edge": None}
    for name, text in chart.files(about, parts, notes=notes, head="Values.").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def written(count: int) -> dict[str, Any]:
    """A stack of web services, each with variables, a secret, limits and an autoscaler."""
    service = {
        "image": "registry.example/many/service:1.0.0",
        "health": "/healthz",
        "replicas": {"min": 2, "max": 4},
        "resources": {"cpu": "250m", "memory": "256Mi"},
        "env": {"MODE": "live", "LEVEL": "info"},
        "secrets": ["TOKEN"],
    }
    return {
        "stack": "many",
        "services": {f"s{n}": {**service, "route": f"/s{n}"} for n in range(count)},
        "environments": {"live": {"target": "kubernetes"}},
    }


def cluster_environment(count: int) -> ClusterEnvironment:
    """The same stack in memory."""
    stack = Stack.model_validate(written(count))
    return render.prepare(LoadedStack(stack, "live", stack.environments["live"], Path("none")))


if __name__ == "__main__":
    main()
