"""Envoy's admin socket, and checks of the port that it listens on."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent.processes import MARK
from lapwing.errors import PortTakenError, ProxyError

CONNECT_TIMEOUT_S = 1.0
SOCKET_LIMIT = 100
"""Longest portable path of a Unix socket in bytes (the limit is 108 on Linux, 104 on macOS)."""


def socket_path(folder: Path, name: str) -> Path:
    """Return the path of an admin socket.

    It is in Envoy's folder or, if that path is too long, in a private folder (0700) of the system's
    temporary folder.
    """
    path = folder / name
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"lapwing-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid() or short.is_symlink():
        raise ProxyError(
            f"The socket folder {short} belongs to another user.",
            hint="Set LAPWING_HOME to a shorter path.",
        )
    short.chmod(0o700)
    return short / name


def listener_pid(path: Path) -> int | None:
    """Return the id of the process that listens on a Unix socket; None if there is none.

    Sources: unix(7), SO_PEERCRED; on macOS LOCAL_PEERPID of sys/un.h.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(CONNECT_TIMEOUT_S)
            client.connect(str(path))
            if sys.platform == "darwin":
                return client.getsockopt(0, 2)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(credentials[:4], sys.byteorder)
    except OSError:
        return None


def is_address(host: str) -> bool:
    """Return whether a host is an IP address (with or without brackets) and not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def check_port(
    address: str, port: int, home: Path | None = None, variable: str = "LAPWING_PORT"
) -> bool:
    """Raise PortTakenError or ProxyError if a port, that of `variable`, cannot be listened on.

    The Envoy of `home` may listen on it; returns whether it does. Scans the connections of all
    processes if the port is in use, so call it in a thread.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError as error:
            raise ProxyError(
                f"Port {port} requires privileges that this user does not have.",
                hint=f"Set {variable} to a port above 1023.",
            ) from error
        except OSError as error:
            holder = _listener(port)
            if holder is None or holder.home is None or holder.home != str(home):
                raise port_taken(port, home, holder, variable) from error
            return True
    return False


def claim_port(addresses: Iterable[str], port: int, home: Path) -> contextlib.ExitStack:
    """Claim a port until the result is closed, or this process ends. Raises PortTakenError.

    Envoy's workers share their port (SO_REUSEPORT), so the kernel would let the Envoys of two homes
    share it, too. An abstract Unix socket has one owner and, like a port, belongs to a network
    namespace; elsewhere than on Linux nothing is claimed. Call it in a thread, as `check_port`.
    """
    claims = contextlib.ExitStack()
    for address in addresses if sys.platform.startswith("linux") else ():
        name = f"lapwing-{address}:{port}"
        try:
            claims.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0{name}")
        except OSError as error:
            claims.close()
            raise port_taken(port, home, _claimant(name)) from error
    return claims


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that uses a port, and its LAPWING_HOME if it belongs to one."""

    pid: int
    name: str
    home: str | None


def port_taken(
    port: int,
    home: Path | None = None,
    holder: Holder | None = None,
    variable: str = "LAPWING_PORT",
) -> PortTakenError:
    """Return the error for a port in use, with the program that uses it if that can be found.

    Scans the connections of all processes without a `holder`, so call it in a thread.
    """
    holder = holder or _listener(port)
    other = f"{variable} (`lapwing open`: `--port`)" if variable == "LAPWING_PORT" else variable
    by = f" by {holder.name} (process {holder.pid})" if holder else ""
    if holder is not None and holder.home is not None:
        by += f" of LAPWING_HOME {holder.home}" + (f"; this one is {home}" if home else "")
    return PortTakenError(
        f"Port {port} is already in use{by}.",
        hint=f"Stop that program, or set another port with {other}.",
    )


def _listener(port: int) -> Holder | None:
    """Return the process that listens on a TCP port; None if that is unknown."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                return _holder(connection.pid, lambda e: e.get(MARK, "").partition("|")[0])
    return None


def _claimant(name: str) -> Holder | None:
    """Return the agent that has claimed a port; None if that is unknown."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("unix"):
            if str(connection.laddr) == f"@{name}" and connection.pid:
                return _holder(connection.pid, lambda e: e.get("LAPWING_HOME", ""))
    return None


def _holder(pid: int, home_of: Callable[[Mapping[str, str]], str]) -> Holder:
    import psutil

    process = psutil.Process(pid)
    home = None
    with contextlib.suppress(psutil.Error, OSError):  # Another user's process.
        home = home_of(process.environ()) or None
    return Holder(pid, process.name(), home)
