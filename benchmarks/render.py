"""Rendering many services as manifests, beside `helm template` of the equal chart.

Both make the same objects of the same stack. Lapwing's time is without reading the stack file, as
Helm's is without writing the chart; Helm's has the start of its process in it. A peer that is
missing is named and left out.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lapwing.render.helm import chart
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.target import Target
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Stack


def main() -> None:
    """Measure, and print a table of medians."""
    options = argparse.ArgumentParser(prog="benchmarks render", description=__doc__)
    options.add_argument("--services", type=int, nargs="+", default=[10, 100, 1000])
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    helm = shutil.which("helm")
    if helm is None:
        print("helm is not on the PATH: measured without it.")
    print("| services | objects | lapwing (s) | helm template (s) | ratio |\n|---|---|---|---|---|")
    for count in given.services:
        made = target(count)
        objects = len(render.manifests(made))
        own = median(given.rounds, lambda made=made: render.files(made))
        if helm is None:
            print(f"| {count} | {objects} | {own:.3f} | - | - |", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            notes = {"secrets": [], "edge": "edge"}
            about = chart.About("many", "1.0.0", "1.0.0", "Many services.")
            # Helm refuses a file of more than 5 MiB, so each holds 100 objects at the most.
            parts = [
                chart.Templated(f"{at // 100}-{m.file}", m.tree)
                for at, m in enumerate(render.manifests(made))
            ]
            for name, text in chart.files(about, parts, notes=notes, head="Values.").items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            command = [helm, "template", "many", folder]
            theirs = median(
                given.rounds,
                lambda command=command: subprocess.run(
                    command, check=True, stdout=subprocess.DEVNULL
                ),
            )
        print(
            f"| {count} | {objects} | {own:.3f} | {theirs:.3f} | {theirs / own:.1f} |", flush=True
        )


def target(count: int) -> Target:
    """A stack of web services, each with variables, a secret, limits and an autoscaler."""
    service = {
        "image": "registry.example/many/service:1.0.0",
        "health": "/healthz",
        "replicas": {"min": 2, "max": 4},
        "resources": {"cpu": "250m", "memory": "256Mi"},
        "env": {"MODE": "live", "LEVEL": "info"},
        "secrets": ["TOKEN"],
    }
    stack = Stack.model_validate(
        {
            "stack": "many",
            "services": {f"s{n}": {**service, "route": f"/s{n}"} for n in range(count)},
            "environments": {"live": {"target": "kubernetes"}},
        }
    )
    return render.target(LoadedStack(stack, "live", stack.environments["live"], Path("none")))


def median(rounds: int, act: Callable[[], object]) -> float:
    """The median of the seconds that an act takes."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return statistics.median(found)
