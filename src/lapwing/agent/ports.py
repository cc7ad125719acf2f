"""TCP ports on loopback for replicas and servers, and what else listens on one."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens for connections: its address, and its inode as in /proc/PID/fd."""

    address: str
    inode: str


def listeners(port: int) -> list[Listener]:
    """Return what listens on a port. Linux only: nothing elsewhere."""
    return [
        Listener(str(_address(fields[1])), fields[9])
        for fields in _sockets(port)
        if fields[3] == "0A"
    ]


def accepted(port: int) -> dict[int, str]:
    """Return the inodes of the accepted connections to a port, by the client's port.

    Linux only: nothing elsewhere.
    """
    connected = (fields for fields in _sockets(port) if fields[3] == "01" and fields[9] != "0")
    return {int(fields[2].rpartition(":")[2], 16): fields[9] for fields in connected}


def public_listener(port: int) -> str | None:
    """Return an address other than loopback on which a process listens on a port, if there is."""
    for listener in listeners(port):
        address = ipaddress.ip_address(listener.address)
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not mapped.is_loopback:
            return listener.address
    return None


def _sockets(port: int) -> Iterator[list[str]]:
    """Yield the fields of each TCP socket with this local port.

    Source: proc_pid_net(5), tcp: 1 is the local and 2 the remote address, 3 the state (0A LISTEN,
    01 ESTABLISHED), 9 the inode, which is 0 until a connection is accepted.
    """
    suffix = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(suffix):
                    yield fields


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address of /proc/net: hexadecimal words in the order of the machine's bytes."""
    host = text.partition(":")[0]
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


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
