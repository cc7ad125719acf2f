"""Write the architecture documents of the example and of FleetDM, beside their stack files.

`python -m docs.generate.documents` writes them; a test compares them with the committed ones. Date,
revision and author are left out: the commit that changes a document has them.
"""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from lapwing.cli.main import cli

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "examples/company-inc", ROOT / "stacks/fleetdm")
NAME = "architecture.md"
ORIGIN = "Date, revision and author are those of the last commit of [lapwing.yaml](lapwing.yaml)."


def document(folder: Path) -> str:
    """Return the document of a stack."""
    result = CliRunner().invoke(cli, ["-C", str(folder), "design"], catch_exceptions=False)
    text, count = re.subn(r"^Date: .*$", ORIGIN, result.stdout, count=1, flags=re.MULTILINE)
    if result.exit_code or not count:
        raise ValueError(f"no document of {folder}: {result.output}")
    return text


if __name__ == "__main__":
    for each in FOLDERS:
        (each / NAME).write_text(document(each))
