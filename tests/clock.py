"""A clock that a test can set, for Python programs that have its folder in PYTHONPATH.

`time.time` returns the time of the system plus the seconds in the file `jump`.
"""

from __future__ import annotations

from pathlib import Path

SITE = """
import pathlib, time
system, system_ns = time.time, time.time_ns
jump = lambda: float(pathlib.Path(__file__).with_name("jump").read_text() or 0)
time.time = lambda: system() + jump()
time.time_ns = lambda: system_ns() + int(jump() * 1e9)
"""


def make(folder: Path) -> Path:
    """Make a clock in a folder; return the file with the seconds by which it is wrong."""
    (folder / "sitecustomize.py").write_text(SITE)
    (folder / "jump").write_text("0")
    return folder / "jump"
