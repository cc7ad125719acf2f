"""Where Envoy is reached: the socket of its admin interface, and the port that it is to have."""

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
"""Bytes of a Unix socket's path that are safe everywhere (108 on Linux, 104 on macOS)."""


def socket_path(folder: Path) -> Path:
    """Where the admin socket is: in Envoy's folder, or, if that path is too long for a socket, in a
    0700 folder of our own below the system's temporary one."""
    path = folder / "admin.sock"
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"lapwing-{os.getuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid() or short.is_symlink():
        raise ProxyError(f"{short} belongs to somebody else.", hint="Use a shorter LAPWING_HOME.")
    short.chmod(0o700)
    return short / "admin.sock"


def is_address(host: str) -> bool:
    """Whether a host is an IP address (with or without brackets) and not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def check_port(address: str, port: int) -> None:
    """Raises PortTakenError or ProxyError if a port cannot be listened on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError as error:
            raise ProxyError(
                f"Port {port} may not be opened by this user.",
                hint="Set LAPWING_PORT to a port above 1023.",
            ) from error
        except OSError as error:
            raise port_taken(port) from error


def port_taken(port: int) -> PortTakenError:
    """The error for a port that is taken, with the program that has it where that can be told."""
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
        f"Port {port} is taken{holder}.",
        hint="Stop that program, or set LAPWING_PORT (for `lapwing open`: `--port`) to another.",
    )
