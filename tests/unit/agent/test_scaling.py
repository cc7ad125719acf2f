"""How many replicas an autoscaled service should have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.agent.scaling import TOLERANCE, Load, Recommendation, recommend, stabilize
from lapwing.plan.model import Scale

SCALE = Scale(max=10, cpu=0.5)
BOTH = Scale(max=10, cpu=0.5, requests=4)


@pytest.mark.parametrize(
    ("scale", "present", "load", "wanted"),
    [
        (SCALE, 2, Load([1.0, 1.0]), 4),
        (SCALE, 2, Load([0.5, 0.55]), 2),
        (SCALE, 2, Load([0.55, 0.55]), 2),
        (SCALE, 2, Load([0.6, 0.6]), 3),
        (SCALE, 4, Load([0.1, 0.1, 0.1, 0.1]), 1),
        (SCALE, 4, Load([0.0] * 4), 1),
        (SCALE, 3, Load([9.0] * 3), 10),
        (SCALE, 20, Load([0.5] * 20), 10),
        (SCALE, 3, Load([]), 3),
        (SCALE, 4, Load([1.0, 1.0]), 4),
        (SCALE, 3, Load([0.1, 0.1]), 2),
        (BOTH, 2, Load([0.1, 0.1], 20.0), 5),
        (BOTH, 5, Load([0.1] * 5, 1.0), 1),
        (BOTH, 5, Load([0.1] * 5, None), 5),
        (BOTH, 2, Load([1.0, 1.0], None), 4),
        (BOTH, 2, Load([], 20.0), 5),
        (BOTH, 5, Load([], 1.0), 5),
    ],
    ids=[
        "twice-the-target",
        "at-the-target",
        "within-tolerance",
        "above-tolerance",
        "a-fifth-of-the-target",
        "idle",
        "not-above-max",
        "max-was-lowered",
        "not-measured",
        "new-replicas-count-as-idle",
        "new-replicas-count-as-at-the-target",
        "the-higher-metric",
        "both-metrics-lower",
        "unknown-requests-remove-none",
        "unknown-requests-and-cpu-above",
        "unknown-cpu-and-requests-above",
        "unknown-cpu-removes-none",
    ],
)
def test_recommendation_follows_the_load(
    scale: Scale, present: int, load: Load, wanted: int
) -> None:
    assert recommend(0.0, present, 1, scale, load).replicas == wanted


def test_recommendation_has_a_reason() -> None:
    found = recommend(0.0, 2, 1, BOTH, Load([0.25, 0.25], 20.0))
    assert found.reason == "each has 10.0 requests in progress, target 4"
    found = recommend(0.0, 2, 1, BOTH, Load([1.5, 1.0], 1.0))
    assert found.reason == "each uses 1.25 cores of CPU, target 0.50"


CORES = st.floats(0, 64, allow_nan=False)
LOADS = st.builds(Load, st.lists(CORES, max_size=8), st.none() | st.floats(0, 1e4, allow_nan=False))
SCALES = st.builds(
    Scale,
    max=st.integers(3, 20),
    cpu=st.floats(0.01, 8),
    requests=st.none() | st.floats(0.1, 100),
)


@given(st.integers(1, 8), st.integers(1, 3), SCALES, LOADS)
def test_recommendation_is_within_limits(
    present: int, least: int, scale: Scale, load: Load
) -> None:
    load = Load(load.cpu[:present], load.requests)
    assert least <= recommend(0.0, present, least, scale, load).replicas <= scale.max


@given(st.integers(1, 8), SCALES, CORES, st.floats(0, 10))
def test_more_load_never_recommends_fewer(
    present: int, scale: Scale, cores: float, more: float
) -> None:
    load, higher = Load([cores] * present, 1.0), Load([cores + more] * present, 1.0)
    one, other = (recommend(0.0, present, 1, scale, each).replicas for each in (load, higher))
    assert other >= one


@given(st.integers(1, 8), SCALES, st.floats(0, 20))
def test_following_a_constant_load_settles(present: int, scale: Scale, total: float) -> None:
    """With the same total load, the number changes at most twice: no oscillation."""
    seen = [present]
    for _ in range(6):
        load = Load([total / seen[-1]] * seen[-1], total)
        seen.append(recommend(0.0, seen[-1], 1, scale, load).replicas)
    assert len(set(seen[2:])) == 1
    mean = total / seen[-1]
    if 1 < seen[-1] < scale.max and scale.requests is None:
        assert mean <= scale.cpu * (1 + TOLERANCE) + 1e-6


def test_replicas_are_removed_after_a_whole_window_of_lower_recommendations() -> None:
    history = [Recommendation(0.0, 5, "start")]
    for at in range(15, 300, 15):
        newest = Recommendation(float(at), 2, "less load")
        history.append(newest)
        assert stabilize(5, newest, history, 300.0).replicas == 5
    newest = Recommendation(300.0, 2, "less load")
    assert stabilize(5, newest, [*history, newest], 300.0).replicas == 2


def test_replicas_are_added_at_once_and_a_peak_in_the_window_counts() -> None:
    history = [Recommendation(0.0, 2, ""), Recommendation(290.0, 4, "")]
    assert stabilize(2, Recommendation(295.0, 6, ""), history, 300.0).replicas == 6
    assert stabilize(6, Recommendation(300.0, 2, ""), history, 300.0).replicas == 4


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 1000), st.integers(1, 20)), max_size=20),
    st.integers(1, 20),
    st.floats(0, 600),
)
def test_stabilized_number_is_between_present_and_recommended(
    present: int, past: list[tuple[float, int]], newest: int, window: float
) -> None:
    history = [Recommendation(at, n, "") for at, n in past]
    found = stabilize(present, Recommendation(1000.0, newest, ""), history, window).replicas
    assert min(present, newest) <= found <= max(present, newest)
