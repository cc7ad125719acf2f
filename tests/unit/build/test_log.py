"""Logs of builds: masked, bounded, and few."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from lapwing.build import command as log
from lapwing.build.command import environment
from lapwing.errors import NoSpaceError


def test_credentials_by_name_and_in_urls() -> None:
    found = log.credentials(
        {
            "NPM_TOKEN": "npm_abc",
            "npm_config__authToken": "deep secret",
            "SIGNING_KEY": "first line\nsecond line",
            "UV_INDEX_URL": "https://me:pass%20word@host/simple",
            "DB_PASSWORD": "abc",
            "VITE_API_URL": "https://host:8585/api",
            "NODE_ENV": "production",
            "MONKEY": "banana",
        }
    )
    assert found == {"npm_abc", "deep secret", "first line", "second line", "pass%20word"}


def test_masked_on_disk_in_memory_and_on_the_screen(tmp_path: Path) -> None:
    heard: list[str] = []
    built = log.open_log(tmp_path, "a-1", heard.append, {"A_TOKEN": "tiger", "B_TOKEN": "tiger2"})
    built.begin(["tool", "--with=tiger"])
    built.write("tiger2 and tiger")
    built.close()
    assert heard == ["$ tool --with=***", "*** and ***"]
    assert list(built.lines) == ["*** and ***"]
    assert built.path.read_text() == "$ tool --with=***\n*** and ***\n"
    assert stat.S_IMODE(built.path.stat().st_mode) == 0o600


def test_lines_of_a_build_secret_are_masked(tmp_path: Path) -> None:
    environ = {"NPMRC": "registry=https://npm.example.com\n_auth=hippopotamus"}
    built = log.open_log(tmp_path, "a-1", None, environ, ["NPMRC"])
    built.write("npm reads: _auth=hippopotamus")
    built.close()
    assert list(built.lines) == ["npm reads: ***"]


def test_old_logs_give_way(tmp_path: Path) -> None:
    for n in range(log.KEPT_LOGS + 5):
        (tmp_path / f"2020010{n // 10}-00000{n % 10}-a.log").touch()
    log.open_log(tmp_path, "a-1", None, {}).close()
    left = sorted(p.name for p in tmp_path.iterdir())
    assert len(left) == log.KEPT_LOGS
    assert left[0] == "20200100-000006-a.log"


def test_a_log_ends(tmp_path: Path) -> None:
    built = log.BuildLog(tmp_path / "log")
    for _ in range(log.LIMIT // 2**20 + 5):
        built.write("x" * 2**20)
    built.write("the cause")
    built.close()
    assert built.path.stat().st_size < log.LIMIT + 100
    assert built.path.read_text().endswith("is too large)\n")
    assert built.lines[-1] == "the cause"


def test_the_environment_of_a_build_is_a_chosen_one() -> None:
    user = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "no",
        "LAPWING_HOME": "/no",
        "PYTHONPATH": "no",
        "NODE_OPTIONS": "no",
        "PATHOLOGY": "no",
        "https_proxy": "yes",
        "UV_INDEX_URL": "yes",
        "npm_config_cache": "yes",
    }
    assert environment(user, {"VITE_A": "1"}) == {
        "PATH": "/bin",
        "https_proxy": "yes",
        "UV_INDEX_URL": "yes",
        "npm_config_cache": "yes",
        "CI": "true",
        "VITE_A": "1",
    }


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("failing", [1, 2], ids=["command", "output"])
def test_log_on_a_full_disk_is_no_failure_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, failing: int
) -> None:
    written: list[str] = []

    def write(line: str) -> None:
        written.append(line)
        if len(written) == failing:
            raise OSError(number, os.strerror(number))

    built = log.open_log(tmp_path, "a-1", None, {})
    monkeypatch.setattr(built, "write", write)
    with pytest.raises(NoSpaceError, match=r"^Building failed: the disk is full"):
        log.run(
            ["/bin/sh", "-c", "echo line"],
            folder=tmp_path,
            environ={},
            log=built,
            until=time.monotonic() + 30,
            doing="Building",
        )
    built.close()
