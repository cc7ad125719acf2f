"""Delays double up to a limit, with jitter."""

from __future__ import annotations

from lapwing.system.retry import RetryPolicy


def test_delay_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(first_delay=1.0, max_delay=5.0)
    for failed, whole in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (1000, 5.0)):
        delays = [policy.delay(failed) for _ in range(50)]
        assert all(whole / 2 <= d <= whole for d in delays)
        assert len(set(delays)) > 1
