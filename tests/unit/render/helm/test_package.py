"""A packaged chart has always the same bytes, and Helm and `lapwing image push` accept it."""

from __future__ import annotations

import tarfile
import time
from pathlib import Path

import pytest

from lapwing.registry.chart import read_chart
from lapwing.render.helm.chart import package
from tests.unit.render.helm import helm
from tests.unit.render.helm.test_emission import by_name, expected, files, one


def test_package_bytes_ignore_time_and_file_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = files(one(1))
    today = package("shop", made)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert package("shop", dict(reversed(made.items()))) == today


def test_helm_and_registry_push_accept_package(tmp_path: Path) -> None:
    file = tmp_path / "shop-1.2.3.tgz"
    file.write_bytes(package("shop", files(one(5))))
    read = read_chart(file)
    assert (read.name, read.version, read.metadata["appVersion"]) == ("shop", "1.2.3", "v9")
    assert by_name(helm.template(file)) == expected(one(5))
    with tarfile.open(file) as archive:
        members = archive.getmembers()
    assert members[0].name == "shop/Chart.yaml"
    assert all(m.uid == m.gid == 0 and m.mode == 0o644 for m in members)
