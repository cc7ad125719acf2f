"""The retention policy of images: what it never removes, for any repository."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lapwing.plan.image_retention import DAY_S, Decision, ImageRetention, Stored

NOW = 1_000 * DAY_S
POLICY = ImageRetention()
NAMES = [f"sha256:{number:064x}" for number in range(40)]
TAGS = ["latest", "deployed-production", "1.0.0", "abc", "def"]


@st.composite
def repositories(draw: st.DrawFn) -> list[Stored]:
    """A repository. An index names manifests of a higher number: hashes have no cycles."""
    found = []
    for number in range(draw(st.integers(0, 30))):
        later = st.sampled_from(NAMES[number + 1 :])
        found.append(
            Stored(
                NAMES[number],
                tags=tuple(draw(st.lists(st.sampled_from(TAGS), max_size=2))),
                time=draw(st.none() | st.integers(0, 1_000).map(lambda day: day * DAY_S + 0.5)),
                children=tuple(draw(st.lists(later, max_size=3))),
                subject=draw(st.none() | st.sampled_from(NAMES)),
            )
        )
    return found


deployments = st.dictionaries(st.sampled_from(NAMES), st.just("deployed in shop/production"))


def decide(stored: list[Stored], deployed: dict[str, str]) -> dict[str, Decision]:
    return {d.stored.digest: d for d in POLICY.decide(stored, deployed, NOW)}


@given(repositories(), deployments)
def test_each_manifest_gets_one_decision_with_a_reason(
    stored: list[Stored], deployed: dict[str, str]
) -> None:
    decisions = POLICY.decide(stored, deployed, NOW)
    assert sorted(d.stored.digest for d in decisions) == [each.digest for each in stored]
    assert all(d.reason for d in decisions)


@given(repositories(), deployments)
def test_deployed_image_is_kept_with_all_that_it_needs(
    stored: list[Stored], deployed: dict[str, str]
) -> None:
    decisions = decide(stored, deployed)
    kept = {digest for digest, d in decisions.items() if d.keep}
    assert set(deployed) & set(decisions) <= kept
    for each in stored:
        if each.digest in kept:
            assert set(each.children) & set(decisions) <= kept
        if each.subject in kept:
            assert each.digest in kept


@given(repositories(), deployments)
def test_newest_tagged_images_are_kept(stored: list[Stored], deployed: dict[str, str]) -> None:
    images = [each for each in stored if each.tags and each.subject is None]
    for each in images:
        if not decide(stored, deployed)[each.digest].keep:
            newer = [o for o in images if o.time is not None and o.time >= (each.time or 0)]
            assert len(newer) > POLICY.newest, "itself, and the newest ten"
            assert "latest" not in each.tags


@given(repositories(), deployments)
def test_untagged_image_of_this_month_is_kept(
    stored: list[Stored], deployed: dict[str, str]
) -> None:
    parts = {child for each in stored for child in each.children}
    decisions = decide(stored, deployed)
    for each in stored:
        alone = not each.tags and each.subject is None and each.digest not in parts
        if alone and (each.time is None or NOW - each.time < POLICY.days * DAY_S):
            assert decisions[each.digest].keep


@given(repositories(), deployments)
def test_second_run_removes_nothing(stored: list[Stored], deployed: dict[str, str]) -> None:
    kept = [d.stored for d in POLICY.decide(stored, deployed, NOW) if d.keep]
    assert all(d.keep for d in POLICY.decide(kept, deployed, NOW))


def image(number: int, *tags: str, age: float = 100.0, **facts: object) -> Stored:
    return replace(Stored(NAMES[number], tags, NOW - age * DAY_S), **facts)


def test_eleventh_image_is_removed_with_its_parts_and_its_signature() -> None:
    stored = [image(n, f"v{n}", age=n) for n in range(10)]
    stored += [
        image(10, "v10", age=11, children=(NAMES[11], NAMES[0])),
        image(11, age=11),
        Stored(NAMES[12], ("sha256-10.sig",), None, subject=NAMES[10]),
    ]
    decisions = decide(stored, {})
    assert [d for d in decisions if not decisions[d].keep] == NAMES[10:13]
    assert decisions[NAMES[10]].reason == "not one of the newest 10"
    assert decisions[NAMES[11]].reason == "part of an image that is removed"
    assert decisions[NAMES[12]].reason == "refers to an image that is removed or missing"
    assert all(d.keep for d in decide(stored, {NAMES[10]: "deployed in shop/local"}).values())


def test_untagged_image_is_removed_after_30_days() -> None:
    decisions = decide([image(0, age=29.9), image(1, age=30.1)], {})
    assert decisions[NAMES[0]].keep
    assert not decisions[NAMES[1]].keep
    assert decisions[NAMES[1]].reason == "older than 30 days"


def test_artifact_registry_gets_the_same_numbers() -> None:
    policy = ImageRetention(newest=7, days=2)
    untagged, newest, deployed = policy.cleanup_policies()
    assert untagged["condition"] == {"tag_state": "UNTAGGED", "older_than": "172800s"}
    assert newest["most_recent_versions"] == {"keep_count": 7}
    assert deployed["condition"]["tag_prefixes"] == ["deployed-"]
    assert policy.collect_tagged() == {"tag_state": "TAGGED", "older_than": "172800s"}
