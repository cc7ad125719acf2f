"""The decision of retention, for any set of releases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lapwing.build.retention import FEWEST, Stored, affordable, to_remove

NOW = 1_000_000.0

releases = st.lists(
    st.builds(
        Stored,
        name=st.integers(0, 40).map("api-{}".format),
        used=st.floats(0, NOW + 5_000),
    ),
    unique_by=lambda stored: stored.name,
    max_size=30,
)
names = st.sets(st.integers(0, 45).map("api-{}".format))


@given(releases, names, st.integers(0, 12))
def test_what_has_to_stay_stays(found: list[Stored], keep: set[str], newest: int) -> None:
    gone = set(to_remove(found, keep, now=NOW, newest=newest, youngest=600))
    assert gone <= {r.name for r in found}
    assert not gone & keep
    assert not any(r.name in gone for r in found if NOW - r.used < 600)
    by_age = sorted(found, key=lambda r: (-r.used, r.name))
    assert not gone & {r.name for r in by_age[:newest]}


@given(releases, names, st.integers(0, 12))
def test_everything_else_goes(found: list[Stored], keep: set[str], newest: int) -> None:
    gone = to_remove(found, keep, now=NOW, newest=newest, youngest=600)
    young = sum(NOW - r.used < 600 for r in found)
    kept = sum(r.name in keep for r in found)
    assert len(found) - len(gone) <= newest + young + kept


@given(releases, names, names)
def test_keeping_more_removes_less(found: list[Stored], keep: set[str], more: set[str]) -> None:
    fewer = to_remove(found, keep | more, now=NOW)
    assert set(fewer) <= set(to_remove(found, keep, now=NOW))


@given(releases, names)
def test_once_is_enough(found: list[Stored], keep: set[str]) -> None:
    gone = set(to_remove(found, keep, now=NOW))
    left = [r for r in found if r.name not in gone]
    assert to_remove(left, keep, now=NOW) == []


@given(st.lists(st.integers(0, 100)), st.integers(0, 300))
def test_fewer_large_releases_are_kept(sizes: list[int], limit: int) -> None:
    count = affordable(sizes, limit)
    assert count == FEWEST or sum(sizes[:count]) <= limit
    assert count >= len(sizes) or sum(sizes[: count + 1]) > limit
