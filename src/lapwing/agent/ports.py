"""TCP ports on loopback for replicas and servers, and what else listens on one."""

from __future__ import annotations

import ipaddress
import random
import socket
import sys
from pathlib import Path

from lapwing.errors import ReplicaError

LOWEST_PORT = 18000
"""The lowest port that a replica is given."""


def free_port(taken: set[int]) -> int:
    """Return a TCP port on 127.0.0.1 that is neither in use nor in `taken`.

    It is below the kernel's range for outgoing connections, so none of those can occupy it when a
    replica restarts. Source: ip(7), ip_local_port_range. Raises ReplicaError if there is none.
    """
    ports = range(LOWEST_PORT, _first_ephemeral_port())
    for port in random.sample(ports, min(len(ports), 200)):
        if port not in taken and _bindable(port):
            return port
    raise ReplicaError(
        f"No free port was found on 127.0.0.1 between {ports.start} and {ports.stop - 1}.",
        hint="Stop programs that listen there: `ss -ltnp` lists them.",
    )


def public_listener(port: int) -> str | None:
    """Return an address other than loopback on which a process listens on a port.

    Linux only: None elsewhere. Source: proc_pid_net(5), tcp: addresses are hexadecimal words in the
    order of the machine's bytes; state 0A is LISTEN.
    """
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            host, local_port = fields[1].split(":")
            if fields[3] == "0A" and int(local_port, 16) == port:
                words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
                packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
                address = ipaddress.ip_address(packed)
                mapped = getattr(address, "ipv4_mapped", None) or address
                if not mapped.is_loopback:
                    return str(address)
    return None


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _first_ephemeral_port() -> int:
    """Return the first port of outgoing connections; 32768 where that is unknown or too low."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768
    return first if first >= LOWEST_PORT + 1000 else 32768
