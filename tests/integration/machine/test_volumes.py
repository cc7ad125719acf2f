"""Volumes: what an application writes there is kept across releases, rollbacks and `down`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployed import Deployed, until
from tests.installation import Installation, installation

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("volumes")]
STACK = """
stack: notes
services:
  app: &app
    build: ./app
    command: python app.py
    route: /
    volumes: {data: db.sqlite3, uploads: ./static/uploads, shared: "@ABSOLUTE@"}
    rollout: {analysis: false, stop_grace: 1s}
  migrate: {<<: *app, kind: job, command: python app.py migrate, route: null}
environments:
  staging:
    target: machine
    services: {app: {volumes: {shared: null}}, migrate: {volumes: {shared: null}}}
"""
APP = """
import os, sqlite3, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
def database():
    return sqlite3.connect(HERE / "db.sqlite3")
if sys.argv[1:] == ["migrate"]:
    database().execute("CREATE TABLE IF NOT EXISTS notes (text)")
    sys.exit()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/add":
            with database() as db:
                db.execute("INSERT INTO notes VALUES ('x')")
            with open("static/uploads/names", "a") as file:
                file.write("x")
        if self.path == "/stray":
            (HERE / "stray.txt").write_text("lost")
        if self.path == "/refused":
            print("PermissionError: [Errno 13] Permission denied: 'cache'", flush=True)
        [count] = database().execute("SELECT count(*) FROM notes").fetchone()
        uploads = Path("static/uploads/names")
        names = len(uploads.read_text()) if uploads.exists() else 0
        place = os.environ["LAPWING_VOLUME_UPLOADS"]
        text = f"VERSION {count} {names} {os.path.samefile(place, uploads.parent)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def write(where: Installation, version: str, absolute: Path) -> None:
    where.write(
        {
            "lapwing.yaml": STACK.replace("@ABSOLUTE@", str(absolute)),
            "app/app.py": APP.replace("VERSION", version),
            "app/requirements.txt": "# The standard library is enough.\n",
            "app/static/uploads/names": "first",
        }
    )


def test_volumes_are_kept(tmp_path: Path) -> None:
    absolute = tmp_path / "srv" / "shared"
    with installation(tmp_path / "root") as where:
        write(where, "v1", absolute)
        where.run("up")
        stack = Deployed(where, "notes")
        assert stack.get("/").text == "v1 0 5 True", "the source's files are the first content"
        assert stack.get("/add").text == "v1 1 6 True"
        place = where.home / "data" / "notes" / "local"
        assert absolute.resolve() == place / "volume.shared"
        assert (place / "volume.data").stat().st_mode & 0o777 == 0o700

        write(where, "v2", absolute)
        where.run("deploy")
        assert stack.get("/add").text == "v2 2 7 True"
        where.run("rollback")
        assert stack.get("/").text == "v1 2 7 True"
        where.run("down")
        where.run("up")
        assert stack.get("/").text == "v2 2 7 True"

        where.run("deploy", "-e", "staging")
        assert stack.get("/", host="staging.notes.localhost").text == "v2 0 5 True"
        where.run("down", "-e", "staging")


def test_file_written_into_the_release_is_reported(tmp_path: Path) -> None:
    with installation(tmp_path / "root") as where:
        write(where, "v1", tmp_path / "shared")
        where.run("up")
        stack = Deployed(where, "notes")
        if stack.get("/stray").status_code != 200:
            pytest.skip("The release is read-only for this user.")
        write(where, "v2", tmp_path / "shared")
        said = where.run("deploy").stderr
        words = "app wrote stray.txt into its release; these files are lost at the next deployment."
        assert words in said
        assert "to a folder such as `data`: add `data-2: ./data` to `volumes` of app." in said


def test_refused_write_is_reported_at_the_next_deployment(tmp_path: Path) -> None:
    """A release is read-only for its replicas, so that most applications fail to write into it."""
    with installation(tmp_path / "root") as where:
        write(where, "v1", tmp_path / "shared")
        where.run("up")
        Deployed(where, "notes").get("/refused")
        write(where, "v2", tmp_path / "shared")
        said = where.run("deploy").stderr
        assert "app was not permitted to write a file (PermissionError: [Errno 13]" in said
        assert "add what it writes there to its `volumes`" in said


def test_status_shows_a_refused_write(tmp_path: Path) -> None:
    with installation(tmp_path / "root") as where:
        write(where, "v1", tmp_path / "shared")
        where.run("up")
        Deployed(where, "notes").get("/refused")
        until(lambda: where.json("status")["advice"], "advice", 1)
        assert "Advice: app was not permitted to write a file" in where.run("status").stdout


def test_absolute_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "shared"
    taken.mkdir()
    with installation(tmp_path / "root") as where:
        write(where, "v1", taken)
        said = where.run("up", status=1).stderr
        problem = f"Volume shared cannot be linked at {taken}: the path exists and is not a link"
        assert f"{problem} to this volume." in said
        assert "LAPWING_VOLUME_SHARED" in said
        until(taken.is_dir)
