"""The PROXY protocol: load balancers that forward TCP state the client's address before the data.

The address counts only if the peer of the connection is a trusted proxy. Envoy reads the header of
every peer, before filter chains are chosen, and a chain cannot compare the stated address with that
of the peer. So there are chains for two kinds of peers only, and other connections are closed:

    trusted proxies    with any stated address; X-Forwarded headers are kept if that address
                       (without a header: the peer) is a trusted proxy, too
    this machine       if the stated address is this machine's, too

The header is optional, so that health checks without one work, and a load balancer can begin to
send it after Envoy accepts it. Source: Envoy documentation, Proxy Protocol listener filter
(versions 1 and 2; LOCAL and UNKNOWN keep the peer's address) and FilterChainMatch.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from lapwing.agent.proxy.xds import address_range, extension
from lapwing.render.envoy import Json

LOOPBACK = ("127.0.0.0/8", "::1/128")


def listener_filter() -> Json:
    """Render the filter that reads the header; it precedes the inspection of TLS."""
    return extension(
        "envoy.filters.listener.proxy_protocol",
        "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        allow_requests_without_proxy_protocol=True,
    )


def matches(trusted: Iterable[str], addresses: Iterable[str]) -> list[tuple[str, bool, Json]]:
    """Return a name, whether X-Forwarded headers are kept, and the match of each filter chain.

    `trusted` are networks; `addresses` are those that Envoy listens on, from which this machine
    connects to them.
    """
    proxies = [address_range(network) for network in trusted]
    found = [
        ("trusted-proxies", True, _match(proxies, proxies)),
        ("forwarded-clients", False, _match(proxies)),
    ]
    if local := _local(list(trusted), addresses):
        found.append(("this-machine", False, _match(local, local)))
    return found


def _match(peers: list[Json], stated: list[Json] | None = None) -> Json:
    source = {} if stated is None else {"source_prefix_ranges": stated}
    return {"filter_chain_match": {"direct_source_prefix_ranges": peers, **source}}


def _local(trusted: list[str], addresses: Iterable[str]) -> list[Json]:
    """Return this machine's networks that are not trusted: Envoy takes the longest prefix."""
    proxies = [ipaddress.ip_network(network) for network in trusted]
    own = [a for a in map(ipaddress.ip_address, addresses) if not a.is_unspecified]
    networks = [
        ipaddress.ip_network(n) for n in (*LOOPBACK, *(a for a in own if not a.is_loopback))
    ]
    return [
        address_range(str(network))
        for network in networks
        if not any(p.version == network.version and network.subnet_of(p) for p in proxies)  # type: ignore[arg-type]
    ]
