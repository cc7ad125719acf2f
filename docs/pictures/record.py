"""Records a terminal session as a picture: runs the commands for real and draws what they print.

    .venv/bin/python docs/pictures/record.py docs/pictures/deploy.svg FOLDER COMMAND...

Each COMMAND is run by a shell in FOLDER, with the environment of the caller; its output, data and
talk together, is drawn below a prompt as it came. Nothing is left out or touched up.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

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
<g transform="translate(16, 16)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main(picture: Path, folder: Path, commands: list[str]) -> None:
    """Run the commands and write the picture. Raises OSError if a file cannot be written."""
    console = Console(record=True, width=WIDTH, file=sys.stdout, force_terminal=True)
    for command in commands:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        done = subprocess.run(
            command, shell=True, cwd=folder, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        console.print(Text.from_ansi(done.stdout.rstrip("\n")))
    picture.write_text(console.export_svg(code_format=FRAME, unique_id="lapwing"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
