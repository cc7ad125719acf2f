"""Retention over a real store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.build import layers
from lapwing.build.builder import BuildResult
from lapwing.build.release import ReleaseStore
from lapwing.build.retention import YOUNGEST, collect

from .conftest import Yard

MakeYard = Callable[[dict[str, str]], Yard]
KEY = ("s", "api")


@pytest.fixture
def yard(make_yard: MakeYard) -> Yard:
    return make_yard({"requirements.txt": "", "app.py": "0"})


def builds(yard: Yard, count: int, *, lock: bool = False) -> list[BuildResult]:
    """Releases, the oldest first; with `lock`, each with a layer of its own."""
    results = []
    for n in range(count):
        yard.tree.write({"app.py": str(n)})
        if lock:
            yard.tree.write({"requirements.txt": f"# {n}\n"})
        results.append(yard.build())
    age(yard, results)
    return results


def age(yard: Yard, results: list[BuildResult]) -> None:
    """Make everything an hour old, in the order of the results."""
    then = time.time() - 3600
    for layer in yard.layers():
        os.utime(layer, (then, then))
    for n, result in enumerate(results):
        os.utime(yard.app(result).parent, (then + n, then + n))


def names(yard: Yard) -> set[str]:
    return set(ReleaseStore(yard.settings.releases).names(*KEY))


def test_the_newest_and_the_kept_stay(yard: Yard) -> None:
    results = builds(yard, 5)
    release = [r.release.name for r in results]
    done = collect(yard.settings, {KEY: {release[0]}}, newest=2)
    assert names(yard) == {release[0], release[3], release[4]}
    assert sorted(done.removed) == sorted(f"releases/s/api/{n}" for n in release[1:3])
    assert done.bytes > 0
    assert yard.left() == []
    locks = yard.app(results[0]).parent.parent / ".locks"
    assert {p.name for p in locks.iterdir()} == names(yard)


def test_layers_go_with_the_last_release_that_names_them(yard: Yard) -> None:
    results = builds(yard, 3, lock=True)
    keep = results[0].release
    collect(yard.settings, {KEY: {keep.name}}, newest=1)
    stay = {*keep.layers, *results[2].release.layers}
    assert {p.name for p in yard.layers()} == stay
    assert len(stay) == 2
    assert yard.build().reused


def test_the_young_stay(yard: Yard) -> None:
    results = builds(yard, 3, lock=True)
    now = time.time()
    os.utime(yard.app(results[0]).parent, (now, now))
    collect(yard.settings, {KEY: set()}, newest=0)
    assert names(yard) == {results[0].release.name}
    assert {p.name for p in yard.layers()} == set(results[0].release.layers)


def test_a_release_that_was_chosen_again_is_young(yard: Yard) -> None:
    first, *_ = builds(yard, 3, lock=True)
    yard.tree.write({"app.py": "0", "requirements.txt": "# 0\n"})
    assert yard.build().release == first.release
    collect(yard.settings, {KEY: set()}, newest=0)
    assert names(yard) == {first.release.name}
    assert {p.name for p in yard.layers()} == set(first.release.layers)


def test_a_service_that_nobody_speaks_of_is_left_alone(yard: Yard) -> None:
    builds(yard, 3, lock=True)
    assert collect(yard.settings, {("s", "other"): set()}, newest=0).removed == ()
    assert len(names(yard)) == len(yard.layers()) == 3


def test_damaged_releases_go_and_keep_no_layer(yard: Yard) -> None:
    results = builds(yard, 3, lock=True)
    (yard.app(results[0]).parent / "release.json").write_bytes(b"")
    age(yard, results)
    collect(yard.settings, {KEY: set()})
    assert names(yard) == {r.release.name for r in results[1:]}
    assert {p.name for p in yard.layers()} == {r.release.layers[0] for r in results[1:]}


def test_a_damaged_release_that_is_kept_keeps_every_layer(yard: Yard) -> None:
    results = builds(yard, 2, lock=True)
    (yard.app(results[0]).parent / "release.json").write_bytes(b"")
    age(yard, results)
    collect(yard.settings, {KEY: {results[0].release.name}}, newest=0)
    assert names(yard) == {results[0].release.name}
    assert len(yard.layers()) == 2


def test_what_is_being_made_is_left_alone(yard: Yard) -> None:
    results = builds(yard, 1)
    target = yard.app(results[0]).parent.with_name("api-new")

    def fill(folder: Path) -> None:
        (folder / "app").mkdir()
        os.utime(folder, (1, 1))
        collect(yard.settings, {KEY: set()}, newest=0, youngest=0)
        assert (folder / "app").is_dir()

    assert layers.make(target, fill)
    assert target.is_dir()


def test_leftovers_of_the_dead_go(yard: Yard) -> None:
    results = builds(yard, 1)
    folder = yard.app(results[0]).parent.parent
    for name in (".tmp-api-abc-x1", ".trash-api-abc-1-ff"):
        (folder / name / "app").mkdir(parents=True)
        (folder / name / "app").chmod(0o500)
    (yard.settings.layers / ".tmp-python-abc-x1").mkdir()
    collect(yard.settings, {})
    assert yard.left() == []
    assert names(yard) == {results[0].release.name}


def test_the_toolchain_in_use_stays(yard: Yard) -> None:
    for n, name in enumerate(("node-1", "node-2", "node-3")):
        (yard.settings.toolchains / name).mkdir(parents=True)
        os.utime(yard.settings.toolchains / name, (n, n))
    collect(yard.settings, {})
    left = [p.name for p in yard.settings.toolchains.iterdir() if not p.name.startswith(".")]
    assert left == ["node-3"]


def test_an_empty_home(yard: Yard) -> None:
    assert collect(yard.settings, {KEY: set()}).removed == ()
    assert not yard.settings.home.exists() or not yard.left()


def test_the_default_spares_the_last_minutes(yard: Yard) -> None:
    yard.build()
    assert YOUNGEST >= 600
    assert collect(yard.settings, {KEY: set()}, newest=0).removed == ()
