"""Envoy's admin socket, and checks of the port that it listens on."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
import tempfile
from pathlib import Path

from lapwing.errors import PortTakenError, ProxyError

SOCKET_LIMIT = 100
"""Longest portable path of a Unix socket in bytes (the limit is 108 on Linux, 104 on macOS)."""


def socket_path(folder: Path) -> Path:
    """Return the path of the admin socket.

    It is in Envoy's folder or, if that path is too long, in a private folder (0700) of the system's
    temporary folder.
    """
    path = folder / "admin.sock"
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"lapwing-{os.getuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid() or short.is_symlink():
        raise ProxyError(
            f"The socket folder {short} belongs to another user.",
            hint="Set LAPWING_HOME to a shorter path.",
        )
    short.chmod(0o700)
    return short / "admin.sock"


def is_address(host: str) -> bool:
    """Return whether a host is an IP address (with or without brackets) and not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def check_port(address: str, port: int) -> None:
    """Raise PortTakenError or ProxyError if a port cannot be listened on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError as error:
            raise ProxyError(
                f"Port {port} requires privileges that this user does not have.",
                hint="Set LAPWING_PORT to a port above 1023.",
            ) from error
        except OSError as error:
            raise port_taken(port) from error


def port_taken(port: int) -> PortTakenError:
    """Return the error for a port in use, with the program that uses it if that can be found.

    Scans the connections of all processes, so call it in a thread.
    """
    import psutil

    holder = ""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                holder = f" by {name} (process {connection.pid})"
                break
    return PortTakenError(
        f"Port {port} is already in use{holder}.",
        hint="Stop that program, or set another port with LAPWING_PORT (`lapwing open`: `--port`).",
    )
