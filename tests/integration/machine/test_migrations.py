"""`migrate` and `after` on a machine: a server that refuses an older schema, as Fleet does.

The schema is a number in Redis. `serve` exits when it is lower than its release needs, and starts
with a warning when it is higher. `migrate` fails while any server is connected.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployed import Deployed, until
from tests.installation import Installation, installation
from tests.needs import require

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("migrations")]
STACK = """
stack: devices
services:
  server:
    build: ./app
    command: python app.py serve
    route: /
    needs: [store]
    migrate: {run: python app.py migrate, mode: @MODE@}
    rollout: {analysis: false, stop_grace: 1s, keep_old: 0s}
  setup:
    kind: job
    build: ./setup
    command: python setup.py
    after: [server]
    needs: [store]
resources:
  store: {kind: redis}
"""
STORE = """
import os, socket, urllib.parse

def ask(*words):
    url = urllib.parse.urlsplit(os.environ["STORE_URL"])
    with socket.create_connection((url.hostname, url.port)) as link, link.makefile("rb") as answers:
        def send(*words):
            text = b"*%d\\r\\n" % len(words)
            link.sendall(text + b"".join(b"$%d\\r\\n%b\\r\\n" % (len(w), w) for w in words))
            first = answers.readline().strip()
            assert not first.startswith(b"-"), first
            if first.startswith(b"$") and first != b"$-1":
                return answers.read(int(first[1:]) + 2)[:-2].decode()
            return ""
        if url.password:
            send(b"AUTH", url.password.encode())
        return send(*[str(word).encode() for word in words])
"""
APP = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from store import ask

NEEDED, BROKEN = @NEEDED@, @BROKEN@
schema = int(ask("GET", "schema") or 0)
if sys.argv[1] == "migrate":
    assert not int(ask("GET", "serving") or 0), "a server is connected"
    time.sleep(@TIME@)
    ask("SET", "schema", NEEDED)
    ask("INCR", "migrations")
    sys.exit("The migration failed." if BROKEN else 0)
if schema < NEEDED:
    sys.exit("Missing migrations")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{NEEDED} {schema} {ask('GET', 'set-up')} {ask('GET', 'migrations')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
server = HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
ask("INCR", "serving")
import signal
signal.signal(signal.SIGTERM, lambda *_: (ask("DECR", "serving"), os._exit(0)))
server.serve_forever()
"""
SETUP = """
import os, sys, urllib.request
from store import ask
page = urllib.request.urlopen(os.environ["SERVER_URL"]).read().decode()
if "@FAILS@" == "yes":
    sys.exit("The set-up failed.")
ask("SET", "set-up", f"@DONE@-after-{page.split()[0]}")
"""


class Devices(Deployed):
    """The stack of this module."""

    SERVICE = "server"

    def write(
        self,
        needed: int,
        mode: str = "offline",
        *,
        done: str = "done",
        fails: bool = False,
        broken: bool = False,
        seconds: float = 0,
    ) -> None:
        app = APP.replace("@NEEDED@", str(needed)).replace("@BROKEN@", str(broken))
        setup = SETUP.replace("@DONE@", done).replace("@FAILS@", "yes" if fails else "no")
        none = "# The standard library is enough.\n"
        self.where.write(
            {
                "lapwing.yaml": STACK.replace("@MODE@", mode),
                "app/app.py": app.replace("@TIME@", str(seconds)),
                "app/store.py": STORE,
                "app/requirements.txt": none,
                "setup/setup.py": setup,
                "setup/store.py": STORE,
                "setup/requirements.txt": none,
            }
        )

    def answer(self) -> str:
        return self.get("/").text


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    require("redis")
    with installation(tmp_path) as where:
        yield Devices(where, "devices")


def revision(where: Installation) -> str:
    return where.git("rev-parse", "HEAD")


def test_jobs_run_after_the_services_and_once_per_release(devices: Devices) -> None:
    where = devices.where
    devices.write(1)
    where.run("up")
    assert devices.answer() == "1 1 done-after-1 1"
    devices.write(1, done="again")
    where.run("deploy")
    assert devices.answer() == "1 1 again-after-1 1"
    devices.write(1, done="never", fails=True)
    failed = where.run("deploy", status=1)
    assert "Job setup exited with status 1" in failed.stderr
    assert "The set-up failed." in failed.stderr
    assert devices.history()[1]["outcome"] == "rolled-back"
    assert devices.answer() == "1 1 again-after-1 1"


def test_online_migration_runs_before_the_new_release_starts(devices: Devices) -> None:
    devices.write(1, "online")
    devices.where.run("up")
    app = devices.where.folder / "app" / "app.py"
    app.write_text(app.read_text().replace("NEEDED, BROKEN = 1", "NEEDED, BROKEN = 2"))
    app.write_text(app.read_text().replace("    assert not int", "    assert int"))
    devices.where.write({})
    devices.where.run("deploy")
    assert devices.answer() == "2 2 done-after-1 2"


def test_offline_migration_needs_consent_and_stops_every_server(devices: Devices) -> None:
    where = devices.where
    devices.write(1)
    where.run("up")
    first = revision(where)
    devices.write(2, seconds=2)
    refused = where.run("deploy", status=1)
    assert "Missing migrations" in refused.stderr
    assert "lapwing deploy -e local --allow-downtime" in refused.stderr
    assert devices.answer() == "1 1 done-after-1 1"

    seen: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.append(devices.get("/").status_code)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = where.run("deploy", "--allow-downtime")
    finally:
        ended.set()
        watcher.join()
    assert set(seen) == {200, 503}
    assert devices.answer() == "2 2 done-after-1 2"
    assert "Backed up to" in done.stderr
    assert [b["id"] for b in where.json("backup", "list")] == [
        done.stderr.partition("Backed up to ")[2].split(".")[0]
    ]
    assert where.json("deploy")["outcome"] == "unchanged"

    back = where.run("rollback", status=2)
    assert "must not run with a newer schema" in back.stderr
    where.git("checkout", "-q", first)
    refused = where.run("deploy", status=2)
    assert "must not run with a newer schema" in refused.stderr
    assert devices.answer() == "2 2 done-after-1 2"

    where.run("backup")
    newer, older = (made["id"] for made in where.json("backup", "list"))
    where.run("restore", "store", older, "--yes", status=1)  # The new release does not start.
    where.run("deploy", "--allow-downtime")
    assert devices.answer() == "1 1 done-after-1 1"

    refused = where.run("restore", "store", newer, "--yes", status=2)
    assert "must not run with a newer schema" in refused.stderr
    assert devices.answer() == "1 1 done-after-1 1"
    where.run("backup")
    where.run("restore", "store", "--yes")
    assert devices.answer() == "1 1 done-after-1 1"
    one = "from store import ask; ask('SET', 'serving', 1)"  # The backup has its server, too.
    where.run("run", "server", "--", "python", "-c", one)
    where.git("checkout", "-q", "main")
    where.run("deploy", "--allow-downtime")
    assert devices.answer() == "2 2 done-after-1 2"


def test_earlier_release_can_be_migrated_to_after_data_was_lost(devices: Devices) -> None:
    where = devices.where
    devices.write(1)
    where.run("up")
    first = revision(where)
    devices.write(2)
    where.run("deploy", "--allow-downtime")
    clear = "from store import ask; ask('SET', 'schema', 0)"
    where.run("run", "server", "--", "python", "-c", clear)
    where.git("checkout", "-q", first)
    where.run("deploy", "--allow-downtime")
    assert devices.answer().startswith("1 1 ")


def test_release_without_a_migration_is_deployed_and_rolled_back(devices: Devices) -> None:
    where = devices.where
    devices.write(1)
    where.run("up")
    devices.write(1, seconds=0.5)  # Another release, of which the schema is the same.
    where.run("deploy")
    assert devices.answer() == "1 1 done-after-1 1"
    where.run("rollback")
    assert devices.answer() == "1 1 done-after-1 1"


def test_failed_migration_leaves_the_page_until_it_is_corrected(devices: Devices) -> None:
    where = devices.where
    devices.write(1)
    where.run("up")
    devices.write(2, broken=True)
    failed = where.run("deploy", "--allow-downtime", status=1)
    assert "The migration failed." in failed.stderr
    assert "restore the backup" in failed.stderr
    assert devices.get("/").status_code == 503
    devices.write(2)
    where.run("deploy", "--allow-downtime")
    assert devices.answer() == "2 2 done-after-1 2", "the failed one had changed the schema"
    back = where.run("rollback", status=2)
    assert "must not run with a newer schema" in back.stderr


def test_interrupted_upgrade_continues_with_the_same_command(devices: Devices) -> None:
    where = devices.where
    devices.write(1)
    where.run("up")
    devices.write(2, seconds=3)
    command = where.begin("deploy", "--allow-downtime")
    until(lambda: "server-migrate" in devices.history()[0]["services"], "the migration")
    until(lambda: len(devices.history()[0]["services"]) == 1, "the migration alone")
    command.send_signal(signal.SIGKILL)
    command.communicate()
    assert devices.get("/").status_code == 503
    until(lambda: devices.history()[0]["outcome"] != "in-progress", "its end")
    where.run("deploy", "--allow-downtime")
    assert devices.answer() == "2 2 done-after-1 2"
