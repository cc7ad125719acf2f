"""nginx: the configuration is written again, and the master process reloads it (HUP).

A reload starts new workers; the old ones answer what they have and keep websockets until those
end, but close idle kept connections, which clients see as races. Source: nginx.org, "Controlling
nginx" and "WebSocket proxying". `backend` is nginx as the fast backend of all.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
from pathlib import Path

from benchmarks.proxies.recipe import Prepared, Recipe, Setting, replace

FRAME = """\
daemon off;
{user}pid {folder}/nginx.pid;
error_log stderr error;
worker_processes {workers};
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
{inner}}}
"""
PROXY = """\
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ""      "";
    }}
    upstream active {{ server 127.0.0.1:{active}; keepalive 32; keepalive_requests 1000000; }}
    upstream fast {{ server 127.0.0.1:{fast}; keepalive 32; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        proxy_http_version 1.1;
        proxy_read_timeout 1h;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        location / {{ proxy_pass http://active; }}
        location = /fast {{ proxy_pass http://fast; }}
    }}
"""
ANSWER = """\
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "fast\\n"; }}
    }}
"""


def _frame(folder: Path, workers: str, inner: str) -> str:
    """The file around it. Workers of root's nginx would be nobody's, who may not write here."""
    who = pwd.getpwuid(os.getuid())
    user = f"user {who.pw_name} {grp.getgrgid(who.pw_gid).gr_name};\n" if who.pw_uid == 0 else ""
    return FRAME.format(folder=folder, workers=workers, user=user, inner=inner)


def prepare(program: str, setting: Setting) -> Prepared:
    """A worker for each core, connections to backends kept."""
    folder = setting.folder
    path = folder / "nginx.conf"

    def write(version: str) -> None:
        inner = PROXY.format(
            active=setting.ports[version],
            fast=setting.ports["fast"],
            port=setting.port,
            certificate=setting.certificate,
            key=setting.key,
        )
        replace(path, _frame(folder, "auto", inner))

    def change(version: str, pid: int) -> None:
        write(version)
        os.kill(pid, signal.SIGHUP)

    write("a")
    return Prepared([program, "-p", str(folder), "-c", str(path)], change)


def backend(program: str, folder: Path, port: str) -> tuple[str, list[str]]:
    """The configuration and the command of nginx that answers every request at once. `port` may
    be a word that is replaced later."""
    text = _frame(folder, "1", ANSWER.format(port=port))
    return text, [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]


NGINX = Recipe("nginx", "nginx", "reload", ["-v"], prepare)
