"""The framing of a port-forward, and which pods are selected."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.kubernetes.pods import describe_pods
from lapwing.kubernetes.port_forward import candidates, port_of
from lapwing.kubernetes.tunnel import DATA, ERROR, NOT_REACHED, ChannelDecoder
from tests.unit.kubernetes.cluster_objects import pod, replica_set, rollout

PORT = (8080).to_bytes(2, "little")


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([DATA, ERROR]), st.binary(max_size=20))))
def test_channels_are_decoded_without_their_port(
    sent: list[tuple[int, bytes]],
) -> None:
    channels, came = ChannelDecoder(), {DATA: b"", ERROR: b""}
    for channel, body in [(DATA, PORT), (ERROR, PORT), *sent]:
        said, piece = channels.decode(bytes([channel]) + body)
        assert said == channel
        came[channel] += piece
    for channel, bytes_ in came.items():
        assert bytes_ == b"".join(b for c, b in sent if c == channel)


def test_port_split_over_two_messages_is_skipped() -> None:
    channels = ChannelDecoder()
    assert channels.decode(b"\0\x90") == (DATA, b"")
    assert channels.decode(b"\0\x1fhello") == (DATA, b"hello")


@pytest.mark.parametrize("message", [b"", b"\2x", b"\xffx", "text"])
def test_invalid_message_is_rejected(message: bytes | str) -> None:
    with pytest.raises(ValueError, match="not a message of v4"):
        ChannelDecoder().decode(message)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("failed to dial 8080: dial tcp4 127.0.0.1:8080: connect: connection refused", True),
        ("failed to find sandbox in store: not found", True),
        ("E connect(5, AF=2 127.0.0.1:80, 16): Connection refused", True),
        ("read: connection reset by peer", False),
        ("", False),
    ],
)
def test_only_undelivered_errors_allow_a_resend(text: str, safe: bool) -> None:
    assert bool(NOT_REACHED.search(text)) is safe


def test_only_ready_pods_of_the_active_slot_are_candidates() -> None:
    blue, green = replica_set("api-1", 3, "aaa"), replica_set("api-2", 4, "bbb")
    pods = [
        pod("api-aaa-old", owner=blue),
        pod("api-bbb-good", owner=green, ports={"stats": 9901, "http": 3000}),
        pod("api-bbb-unready", owner=green, ready=False),
        pod("api-bbb-leaving", owner=green, leaving=True),
        pod("web-1", name="web"),
    ]
    found = list(describe_pods(pods, [blue, green], [rollout("api", active="bbb")]))
    [chosen] = candidates(found, "api")
    assert (chosen.name, port_of(chosen)) == ("api-bbb-good", 3000)
    assert port_of(next(i for i in found if i.name == "web-1")) is None
