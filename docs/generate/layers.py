"""Write the table of packages in docs/architecture.md from the import contract of pyproject.toml.

`python -m docs.generate.layers` writes it; a test compares it with the committed one. The purpose
of a package is the first sentence of its docstring.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- packages: begin -->\n", "<!-- packages: end -->"


def table() -> str:
    """Return the table: one row for each layer, from the top to the bottom."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    rows = ["| layer | package | purpose |", "|---|---|---|"]
    for number, layer in enumerate(reversed(layers), start=1):
        names = [name.strip().removeprefix("lapwing.") for name in layer.split("|")]
        rows[2:2] = [f"| {number} | `{name}` | {_purpose(name)} |" for name in names]
    return "\n".join(rows) + "\n"


def _purpose(name: str) -> str:
    path = ROOT / "src/lapwing" / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", ",")


def page() -> str:
    """Return the whole page with the present table."""
    text = PAGE.read_text(encoding="utf-8")
    return text.partition(BEGIN)[0] + BEGIN + table() + END + text.partition(END)[2]


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
