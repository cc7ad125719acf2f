"""HAProxy: the active backend is an entry of a map, set through the runtime socket.

Source: the configuration manual, "map" converters and "stats socket"; the management guide,
"set map".
"""

from __future__ import annotations

import socket

from benchmarks.proxies.recipe import BenchmarkError, Prepared, Recipe, Setting

CONFIGURATION = """\
global
    stats socket {folder}/admin.sock mode 600 level admin
    hard-stop-after 5s

defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    timeout tunnel 1h
    http-reuse safe

frontend clients
    bind 127.0.0.1:{port} ssl crt {folder}/certificate.pem alpn http/1.1
    use_backend fast if {{ path /fast }}
    use_backend %[str(active),map({folder}/active.map)]
"""
BACKEND = """
backend {name}
    server one 127.0.0.1:{port}
"""


def prepare(program: str, setting: Setting) -> Prepared:
    """One process of as many threads as there are cores, which is its default."""
    folder = setting.folder
    (folder / "certificate.pem").write_text(
        setting.certificate.read_text() + setting.key.read_text()
    )
    (folder / "active.map").write_text("active a\n")
    backends = [BACKEND.format(name=name, port=port) for name, port in setting.ports.items()]
    text = CONFIGURATION.format(folder=folder, port=setting.port) + "".join(backends)
    (folder / "haproxy.cfg").write_text(text)

    def change(version: str, _pid: int) -> None:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(folder / "admin.sock"))
            wire.sendall(f"set map {folder}/active.map active {version}\n".encode())
            if said := wire.recv(4096).strip():
                raise BenchmarkError(f"HAProxy: {said.decode()}")

    return Prepared([program, "-db", "-f", str(folder / "haproxy.cfg")], change)


HAPROXY = Recipe("HAProxy", "haproxy", "map through its runtime socket", ["-v"], prepare)
