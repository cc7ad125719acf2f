"""Images of database servers, made of the servers of this machine.

No image of a publisher can be pulled in a test. Each image has the server, its tools, and an
entrypoint that does for new data what that of the official image does. MySQL is that of Debian's
unstable release (`.ci/install-mysql`); FerretDB takes the place of mongod.

Source of the entrypoints: docker-entrypoint.sh in docker-library/mysql, /redis and /mongo.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.image.docker import Docker, write_base
from tests.needs import require

ENTRYPOINT = "docker-entrypoint.sh"
TOOLS = ("cat", "date", "grep", "head", "mkdir", "sed", "sleep")
"""Commands that the scripts of backups call; they are those of busybox."""
MYSQL = """\
#!/bin/sh
set -e
if [ ! -d /var/lib/mysql/mysql ]; then
  mysqld --initialize-insecure
  umask 0077
  root=${MYSQL_ROOT_PASSWORD:-$(cat "$MYSQL_ROOT_PASSWORD_FILE")}
  cat >/tmp/init.sql <<EOF
CREATE DATABASE \\`$MYSQL_DATABASE\\`;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '${MYSQL_PASSWORD:-$(cat "$MYSQL_PASSWORD_FILE")}';
GRANT ALL ON \\`$MYSQL_DATABASE\\`.* TO '$MYSQL_USER'@'%';
ALTER USER root@localhost IDENTIFIED BY '$root';
CREATE USER root@'%' IDENTIFIED BY '$root';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
EOF
  set -- "$@" --init-file=/tmp/init.sql
fi
exec "$@"
"""
REDIS = """\
#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then
  set -- redis-server "$@"
fi
umask 0077
exec "$@"
"""
"""Without the change of user: it is not root."""
MONGODB = """\
#!/bin/sh
set -e
umask 0077
export FERRETDB_TEST_ENABLE_NEW_AUTH=true FERRETDB_SETUP_DATABASE=admin
export FERRETDB_SETUP_USERNAME="$MONGO_INITDB_ROOT_USERNAME"
FERRETDB_SETUP_PASSWORD=${MONGO_INITDB_ROOT_PASSWORD:-$(cat "$MONGO_INITDB_ROOT_PASSWORD_FILE")}
export FERRETDB_SETUP_PASSWORD
exec ferretdb --handler=sqlite --sqlite-url=file:/data/db/ --state-dir=/data/db \\
  --listen-addr=:27017 --telemetry=disable --debug-addr=-
"""
MONGOSH = """\
#!/bin/sh
exec node /usr/local/lib/node_modules/mongosh/bin/mongosh.js "$@"
"""


@dataclass(frozen=True, slots=True)
class DatabaseImage:
    """The archive of the only layer of an image, and the settings of the image."""

    archive: Path
    command: str
    path: str = "/usr/local/bin"
    folder: str = "/"

    def load(self, docker: Docker, name: str) -> None:
        """Make an image of an engine of it."""
        changes = [f"ENV PATH={self.path}", f'ENTRYPOINT ["{ENTRYPOINT}"]']
        changes += [f'CMD ["{self.command}"]', f"WORKDIR {self.folder}"]
        docker("import", *(f"--change={c}" for c in changes), str(self.archive), name)
        self.archive.unlink()


def mysql(folder: Path) -> DatabaseImage:
    archive = folder / "mysql.tar"
    with tarfile.open(archive, "w") as files:
        files.add(require("mysql-root"), ".")
        files.add(_program(folder, ENTRYPOINT, MYSQL), f"usr/local/bin/{ENTRYPOINT}")
        for command in TOOLS:
            link = tarfile.TarInfo(f"usr/local/bin/{command}")
            link.type, link.linkname = tarfile.SYMTYPE, "/bin/busybox"
            files.addfile(link)
    return DatabaseImage(archive, "mysqld", path="/usr/local/bin:/usr/sbin:/usr/bin")


def redis(folder: Path) -> DatabaseImage:
    archive, server = folder / "redis.tar", Path(require("redis"))
    files = {f"usr/local/bin/{ENTRYPOINT}": _program(folder, ENTRYPOINT, REDIS)}
    for kind in ("server", "cli"):
        program = server.with_name(server.name.replace("server", kind))
        files[f"usr/local/bin/redis-{kind}"] = program.resolve()
    files |= {f"usr/local/bin/{command}": Path(require("busybox")) for command in TOOLS}
    write_base(archive, files, ("sh",))
    return DatabaseImage(archive, "redis-server", folder="/data")


def mongodb(folder: Path, *, shell: bool = False) -> DatabaseImage:
    """Make an image with FerretDB and the tools of MongoDB, if asked for also with its shell."""
    archive, server = folder / "mongodb.tar", Path(require("mongodb"))
    tools = Path(require("mongo-tools"))
    if server.name != "ferretdb":
        pytest.skip("needs FerretDB")
    files = {f"usr/local/bin/{n}": tools.with_name(n) for n in ("mongodump", "mongorestore")}
    files["usr/local/bin/ferretdb"] = server
    files[f"usr/local/bin/{ENTRYPOINT}"] = _program(folder, ENTRYPOINT, MONGODB)
    if shell:
        modules = Path(require("mongosh"))
        for found, _, names in os.walk(modules):
            inner = Path("usr/local/lib/node_modules", Path(found).relative_to(modules))
            files |= {str(inner / name): Path(found, name) for name in names}
        files["usr/local/bin/mongosh"] = _program(folder, "mongosh", MONGOSH)
        files["usr/local/bin/node"] = Path(require("node")).resolve()
    write_base(archive, files, ("sh", "cat", "grep"))
    return DatabaseImage(archive, "mongod")


def _program(folder: Path, name: str, text: str) -> Path:
    program = folder / name
    program.write_text(text)
    program.chmod(0o755)
    return program
