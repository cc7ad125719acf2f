"""Write docs/pictures/deploy.svg: a terminal session with a copy of the example, as it really ran.

`python -m docs.generate.session` runs the commands in a copy of examples/company-inc, with a
separate LAPWING_HOME, and draws what they print. Nothing is left out or changed. It takes about a
minute, and times and releases differ each time, so `make docs` does not run it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/pictures/deploy.svg"
COMMANDS = (
    "git commit -qam 'Answer faster' && lapwing deploy",
    "lapwing status",
    "lapwing rollback",
    "lapwing history",
)
WIDTH = 112
FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; font-variant-ligatures: none; }}
{styles}
</style>
<defs>{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#1b1f24"/>
<g transform="translate(16, 16) scale(0.985)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def record(folder: Path, commands: Iterable[str], environ: Mapping[str, str]) -> str:
    """Run commands in a folder, and return a picture of them with their output."""
    console = Console(record=True, width=WIDTH, file=sys.stdout, force_terminal=True)
    for command in commands:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        done = subprocess.run(
            command, shell=True, cwd=folder, text=True, check=True, env=environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        console.print(Text.from_ansi(done.stdout.rstrip("\\n")))
    return console.export_svg(code_format=FRAME, unique_id="lapwing")


def session(top: Path) -> str:
    """Run the session below a folder: start the stack, change it, and record what follows."""
    folder = top / "company-inc"
    shutil.copytree(
        ROOT / "examples/company-inc", folder, ignore=shutil.ignore_patterns("node_modules", "dist")
    )
    environ = {**os.environ, "LAPWING_HOME": str(top / "home"), "LAPWING_ACTOR": "ada"}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"

    def run(command: str) -> None:
        subprocess.run(command, shell=True, cwd=folder, check=True, env=environ)

    run("git init -q && git config user.name Ada && git config user.email ada@company.example")
    run("git add . && git commit -qm 'Add the application'")
    try:
        run("lapwing up")
        run("echo '# Faster.' >> api/app.py")
        return record(folder, COMMANDS, environ)
    finally:
        run("lapwing down; lapwing agent stop")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lapwing-session-") as top:
        FILE.write_text(session(Path(top)))
