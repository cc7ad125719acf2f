"""Reading and merging what containers print: lines, moments, and who printed them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.kubernetes import logs
from lapwing.kubernetes.logs import split
from tests.unit.kubernetes.cluster_objects import pod, replica_set, rollout


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_chunk_boundaries(stream: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    chunks = [stream[a:b] for a, b in pairwise(at)]
    lines = stream.split(b"\n")
    assert list(split(chunks)) == (lines[:-1] if lines[-1] == b"" else lines)


def test_endless_line_is_split_and_not_buffered() -> None:
    endless = (b"x" * 1000 for _ in range(1000))
    pieces = split(endless, max_bytes=5000)
    assert len(next(pieces)) == 5000
    assert sum(map(len, pieces)) == 1_000_000 - 5000


def test_only_line_feeds_end_a_line() -> None:
    assert list(split(["10%\r20%\u2028\x0b\n".encode()])) == ["10%\r20%\u2028\x0b".encode()]


def test_replica_labels_name_slot_and_idle_state() -> None:
    from lapwing.kubernetes.pods import describe_pods

    blue, green = replica_set("api-1", 3, "aaa"), replica_set("api-2", 4, "bbb")
    pods = [
        pod("api-aaa-x1", owner=blue),
        pod("api-bbb-y2", owner=green),
        pod("shop-api-migrate-1-q7", name="api-migrate", component="job"),
        pod("shop-edge-5d-zz", name="edge", component="edge"),
    ]
    strangers = pod("somebody", name=None)
    found = list(describe_pods([*pods, strangers], [blue, green], [rollout("api", active="bbb")]))
    assert [(i.service, i.label) for i in found] == [
        ("api", "blue-3.x1 idle"),
        ("api", "green-4.y2"),
        ("api-migrate", "job.q7"),
        ("edge", "edge.zz"),
    ]
    assert [i.belongs_to("api") for i in found] == [True, True, True, False]


def test_completed_init_containers_are_not_read() -> None:
    from lapwing.kubernetes.pods import describe_pods

    made = pod("api-1", inits={"fetch": 0, "prepare": 3})
    [instance] = describe_pods([made], [], [])
    assert [s.container for s in logs.sources([instance])] == ["prepare", "app"]
