"""What a failed build says of memory, by the counts and the limits of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.build import command
from tests.failed_builds import failed_build


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "user-999.slice",
            "increase the limit (as root: `systemctl set-property user-999.slice MemoryMax=90%`), ",
        ),
        ("app.scope", "increase the limit, reduce"),
    ],
)
def test_kill_in_the_group_of_the_build_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    outer = tmp_path / name
    inner = outer / "session-1.scope"
    inner.mkdir(parents=True)
    (outer / "memory.max").write_text(f"{64 * 2**20}\n")
    for group in (inner, outer):
        (group / "memory.events").write_text("oom 7\noom_kill 7\n")
    monkeypatch.setattr(command, "memory_groups", lambda _: [inner, outer])
    error = failed_build(tmp_path, f"echo oom_kill 8 > {inner}/memory.events; exit 1")
    assert f"memory ran out; the limit of control group {outer} is 64Mi)" in error.message
    assert hint in str(error.hint)
    elsewhere = failed_build(tmp_path, f"echo oom_kill 9 > {outer}/memory.events; exit 1")
    assert (elsewhere.message, elsewhere.hint) == ("It failed (exit status 1).", None)


def test_limit_is_not_mentioned_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    monkeypatch.setattr(command, "memory_groups", lambda _: [tmp_path])
    error = failed_build(tmp_path, f"echo oom_kill 1 > {tmp_path}/memory.events; exit 1")
    assert "; this machine has " in error.message
    assert "Add memory or swap, reduce the parallel" in str(error.hint)
