"""How large the edge of a cluster is: one function of the services behind it.

The stack file states no traffic, but the CPU of the services with a route. Their reference size is
that of Fleet: 30 replicas of one CPU serve 150,000 devices, each with a kept connection and a
request every 10 seconds (Fleet documentation, "Reference architectures"; osquery's
`distributed_interval`). So a CPU of a service is 500 requests a second and 5,000 connections.

Envoy was measured with the rendered configuration and TLS on one machine: 0.21 s of CPU for 1,000
requests on kept connections (Istio documentation, "Performance and Scalability", has 0.20), 1.2 s
with a connection for each; 66 MB when idle, and 21 kB for each idle connection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SERVICE_SHARE = 10
"""CPU of the services for each CPU of the edge: 500 requests a second need 0.1 CPU."""
CONNECTIONS_PER_CPU = 5_000
"""Connections that clients keep for each CPU of the services."""
MIN_CPU = 100
"""The smallest pod, in thousandths of a CPU: 500 requests a second."""
MAX_CPU = 1_000
"""The largest pod. A larger edge has more pods, so that each has a smaller share of the clients."""
CPU_STEP = 10
IDLE_BYTES = 66 * 10**6
CONNECTION_BYTES = 21_500
BODIES = 4
"""How many of the largest request bodies a pod can buffer at once."""
MIN_BYTES = 128 * 2**20
MEMORY_STEP = 64 * 2**20
MIN_CONCURRENCY = 2
"""Worker threads, so that a burst of TLS handshakes does not delay every client (Istio's default).
Envoy's default is one for each CPU of the node."""


@dataclass(frozen=True, slots=True)
class EdgeSize:
    """The pods of an edge. `cpu` and `memory` are those of one pod: thousandths, and bytes."""

    pods: int
    max_pods: int
    """More than `pods` where an autoscaler can measure them."""
    cpu: int
    memory: int
    max_connections: int
    """For how many clients of a pod there is memory."""

    @property
    def concurrency(self) -> int:
        """The number of Envoy's worker threads."""
        return max(MIN_CONCURRENCY, math.ceil(self.cpu / 1000))

    @property
    def max_heap(self) -> int:
        """The heap in bytes at which new requests get 503; the rest is for Envoy's code."""
        return self.memory * 7 // 8


def edge_size(
    least: int, most: int, *, replicated: bool, scaled: bool, max_body: int = 0
) -> EdgeSize:
    """Choose the size of an edge.

    Args:
        least: The CPU in thousandths of all services with a route, with their fewest replicas.
        most: The same with their most replicas.
        replicated: Whether the edge has to survive the loss of a pod. The other pods then have
            memory for all clients; CPU has no limit.
        scaled: Whether the cluster measures the CPU of pods.
        max_body: The largest request body in bytes.
    """
    pods = max(2 if replicated else 1, math.ceil(least / SERVICE_SHARE / MAX_CPU))
    cpu = max(MIN_CPU, _round_up(least / SERVICE_SHARE / pods, CPU_STEP))
    max_pods = max(pods + 1, math.ceil(most / SERVICE_SHARE / cpu)) if scaled else pods
    connections = CONNECTIONS_PER_CPU * least // 1000 // max(1, pods - 1)
    fixed = IDLE_BYTES + BODIES * max_body
    memory = max(MIN_BYTES, fixed + connections * CONNECTION_BYTES)
    memory = _round_up(memory, MEMORY_STEP)
    return EdgeSize(pods, max_pods, cpu, memory, (memory - fixed) // CONNECTION_BYTES)


def _round_up(value: float, step: int) -> int:
    return math.ceil(value / step) * step
