"""`lapwing doctor` on kernels that move, do not move or cannot move new connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.commands import doctor


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("1\n", "resets no connection"),
        ("0\n", "may reset new connections: set `sysctl net.ipv4.tcp_migrate_req=1`"),
        (None, "may reset new connections: Linux 5.14 or newer can move them"),
    ],
)
def test_connections_are_reset_where_the_kernel_does_not_move_them(
    setting: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the setting is missing before Linux 5.14."""
    monkeypatch.setattr(doctor, "MIGRATION", tmp_path / "tcp_migrate_req")
    if setting is not None:
        doctor.MIGRATION.write_text(setting)
    assert doctor._replacement().seen == expected
