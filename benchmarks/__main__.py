"""`python -m benchmarks [NAME [OPTIONS]]`: list the benchmarks, or run one by its name, or `all`.

A benchmark is a module of this folder with a function `main`, which reads its options from
`sys.argv`. There is no list to keep: a new module is found by being there.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """The benchmarks by name, with the first line of the docstring of each. Read from the
    sources, so that listing imports nothing."""
    found = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main() -> None:
    """List, or run. Ends with status 2 if the name is not known, 1 if one of `all` failed."""
    found = benchmarks()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("Usage: python -m benchmarks NAME [OPTIONS]; NAME --help lists the options.\n")
        for name, about in found.items():
            print(f"  {name:12}  {about}")
        print(f"  {'all':12}  Each of them in turn, with its defaults.")
        return
    name = sys.argv[1].replace("-", "_")
    if name == "all":
        commands = [[sys.executable, "-m", "benchmarks", each] for each in found]
        sys.exit(max(subprocess.run(c, check=False).returncode != 0 for c in commands))
    if name not in found:
        print(f"There is no benchmark {name!r}. There are: {', '.join(found)}.", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"python -m benchmarks {name}"]
    importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
