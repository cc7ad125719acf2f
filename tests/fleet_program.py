"""A program in place of Fleet, whose image and module the tests cannot have.

It does what Fleet does with its database (docs of "fleet prepare db", "fleet serve"): it migrates
the schema, and refuses to serve with one that is too old.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.needs import require

PATH = "/usr/local/bin:/usr/bin"
"""The PATH of the image."""
FLEET = """\
#!/bin/sh
ask() {
  MYSQL_PWD=$FLEET_MYSQL_PASSWORD @CLIENT@ -h "${FLEET_MYSQL_ADDRESS%:*}" \\
    -P "${FLEET_MYSQL_ADDRESS#*:}" -u "$FLEET_MYSQL_USERNAME" -BN "$FLEET_MYSQL_DATABASE" -e "$1"
}
ask "CREATE TABLE IF NOT EXISTS migrations (version INT)" || exit 1
version=$(ask "SELECT COALESCE(MAX(version), 0) FROM migrations")
case "$*" in
  "prepare db --no-prompt")
    ask "INSERT INTO migrations VALUES (@NEEDED@)" ;;
  serve*)
    if [ "$version" -lt @NEEDED@ ]; then echo "Missing migrations"; exit 1; fi
    pages=/tmp/fleet.$$
    mkdir $pages
    echo ok >$pages/healthz
    echo "@VERSION@ schema $version" >$pages/version
    exec @BUSYBOX@ httpd -f -p "${3:-8080}" -h $pages ;;
esac
"""


def write(script: Path, version: str, needed: int, root: str | None = None) -> None:
    """Write a version of Fleet that needs a version of the schema.

    Its tools are on its PATH, or in the file system `root`.
    """
    text = FLEET.replace("@VERSION@", version).replace("@NEEDED@", str(needed))
    client = f"/usr/sbin/chroot {root} mysql" if root else "mysql"
    busybox = f"{root}/usr/bin/busybox" if root else "busybox"
    script.write_text(text.replace("@CLIENT@", client).replace("@BUSYBOX@", busybox))
    script.chmod(0o755)


def archive(folder: Path, version: str, needed: int) -> Path:
    """Write the archive of an image of a version of Fleet."""
    script, made = folder / "fleet", folder / "fleet.tar"
    write(script, version, needed)
    with tarfile.open(made, "w") as files:
        files.add(require("mysql-root"), ".")
        files.add(script, "usr/local/bin/fleet")
    return made
