"""What Envoy 1.40 answers on its admin interface, and what is read from it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from lapwing.agent.proxy.admin import (
    Admin,
    merge_counters,
    parse_clusters,
    parse_histograms,
    parse_stats,
)
from lapwing.agent.proxy.model import Counters
from lapwing.errors import ProxyError


def host(port: int, **health: Any) -> dict[str, Any]:
    """A host as `/clusters?format=json` tells it."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"address": address, "health_status": {"eds_health_status": "HEALTHY", **health}}


def test_health() -> None:
    answer = {
        "cluster_statuses": [
            {
                "name": "shop/local/api/blue-1",
                "host_statuses": [
                    host(1),
                    host(2, failed_active_health_check=True),
                    host(3, failed_outlier_check=True),
                    host(4, failed_active_health_check=False),
                    {"address": {"pipe": {"path": "/x"}}},
                ],
            },
            {"name": "empty"},
        ]
    }
    assert parse_clusters(json.dumps(answer).encode()) == {
        "shop/local/api/blue-1": {1: True, 2: False, 3: False, 4: True},
        "empty": {},
    }
    assert parse_clusters(b"{}") == {}


def test_stats() -> None:
    answer = b'{"stats":[{"name":"a.b","value":3},{"name":"v","value":"7-1"},{"histograms":{}}]}'
    assert parse_stats(answer) == {"a.b": 3, "v": "7-1"}
    assert parse_stats(b"{}") == {}


def test_histograms() -> None:
    """Bounds are milliseconds there and seconds here; the order is ours."""
    buckets = [
        {"upper_bound": 10, "interval": 1, "cumulative": 5},
        {"upper_bound": "inf", "interval": 0, "cumulative": 6},
        {"upper_bound": 0.5, "interval": 1, "cumulative": 2},
    ]
    answer = {"stats": [{"histograms": [{"name": "c.upstream_rq_time", "buckets": buckets}]}]}
    assert parse_histograms(json.dumps(answer).encode()) == {
        "c.upstream_rq_time": ((0.0005, 2), (0.01, 5), (math.inf, 6))
    }


def test_histogram_without_values_is_empty() -> None:
    assert parse_histograms(b'{"stats":[{"histograms":[{"name":"a"}]}]}') == {"a": ()}
    assert parse_histograms(b'{"stats":[]}') == {}


async def test_unreachable_envoy_raises(tmp_path: Any) -> None:
    admin = Admin([tmp_path / "none.sock"])
    assert not await admin.ready()
    with pytest.raises(ProxyError, match="does not respond"):
        await admin.get("/clusters")
    await admin.close()


def test_counters_of_two_processes_are_added() -> None:
    one = Counters("c", 5, 1, 2, 3, ((0.1, 4), (math.inf, 5)))
    idle = Counters("c")
    two = Counters("c", 7, 0, 1, 1, ((0.1, 7), (math.inf, 7)))
    added = Counters("c", 12, 1, 3, 4, ((0.1, 11), (math.inf, 12)))
    assert merge_counters("c", [one, idle, two]) == added
