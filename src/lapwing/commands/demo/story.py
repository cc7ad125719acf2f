"""The story of the demo: what is changed in the example, act by act, and what has to come of it.

Each change is one that people make: a line is added, a name is changed on one side only, something
slow is put into every request. The release that goes bad is correct and slow, not one that answers
500: what a release answers, clients get, and no proxy can take it back. What Lapwing can promise is
that a slow one loses its traffic within seconds, by itself, and without a failed request.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lapwing.commands.demo.stage import Stage
from lapwing.errors import LapwingError
from lapwing.load.client import Plan
from lapwing.load.traffic import Traffic

TITLE = "<Text fw={700}>Company Inc.</Text>"
HEALTHY = 'return jsonify(status="ok")'
TOTAL = "total=page.total"
SLOWNESS = 0.8
"""Seconds that the slow release adds to each request; the example allows 0.5 for 95 % of them."""

DRILL = '''\
"""What the demo adds to the example: an answer that takes its time."""

import time

from flask import Blueprint, Response, request

drill = Blueprint("drill", __name__)


@drill.get("/api/slow")
def slow():
    """Thirty lines over the seconds that were asked for."""
    seconds = float(request.args.get("seconds", "3"))

    def lines():
        for number in range(30):
            time.sleep(seconds / 30)
            yield f"{number}\\n"

    return Response(lines(), mimetype="text/plain")
'''
REGISTERED = """
from drill import drill

app.register_blueprint(drill)
"""
SLOW = f"""
import time


@app.before_request
def wait():
    time.sleep({SLOWNESS})
"""


@dataclass(frozen=True, slots=True)
class Edit:
    """A text that takes the place of another in a file of the example; or, without `old`, one that
    is added at its end."""

    file: str
    new: str
    old: str | None = None

    def make(self, folder: Path) -> None:
        """Change the file. Raises LapwingError if the old text is not there once."""
        path = folder / self.file
        text = path.read_text() if path.exists() else ""
        if self.old is None:
            path.write_text(text + self.new)
            return
        if text.count(self.old) != 1:
            raise LapwingError(
                f"The demo does not know this example any more: {self.file} has "
                f"{text.count(self.old)} times {self.old!r}.",
                hint="Use the example that comes with this version of Lapwing.",
            )
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Act:
    """One act: `edits` are made and committed, then `verb` is done, and `outcome` has to come of
    it. `services` are those that are built."""

    name: str
    verb: Literal["deploy", "rollback"]
    outcome: str
    edits: tuple[Edit, ...] = ()
    services: tuple[str, ...] = ()
    shown: str = ""
    """What the change is, for people."""


ADDED = (Edit("api/drill.py", DRILL), Edit("api/app.py", REGISTERED))
"""What is added to the example before the first deployment."""

ACTS = (
    Act(
        "a good change",
        "deploy",
        "succeeded",
        (
            Edit("web/src/App.tsx", TITLE.replace("Inc.", "Inc., second edition"), TITLE),
            Edit("api/api.py", HEALTHY.replace(")", ", edition=2)"), HEALTHY),
        ),
        shown="a new title on the page and a new field in the API, in one switch",
    ),
    Act(
        "a broken change",
        "deploy",
        "failed",
        (Edit("api/api.py", "count=page.total", TOTAL),),
        ("api",),
        shown="the API renames a field that the page needs; a smoke test finds out",
    ),
    Act(
        "a change that goes bad",
        "deploy",
        "rolled-back",
        (Edit("api/api.py", TOTAL, "count=page.total"), Edit("api/app.py", SLOW)),
        ("api",),
        shown=f"the API is right but {SLOWNESS:g} s slower; live traffic shows it",
    ),
    Act(
        "another good change",
        "deploy",
        "succeeded",
        (
            Edit("api/app.py", "", SLOW),
            Edit("api/api.py", "edition=3", "edition=2"),
        ),
        ("api",),
        shown="the slow lines are taken out again",
    ),
    Act("a rollback", "rollback", "succeeded", shown="back to the first good change"),
)


def prepare(stage: Stage) -> None:
    """Write and commit the example as it is before the first act."""
    for edit in ADDED:
        edit.make(stage.source)
    stage.commit("The example")


def plan(stage: Stage) -> Plan:
    """The load: about 150 requests a second, of every kind that the example can answer."""
    customer = '{"name": "Demo {unique}", "email": "demo-{unique}@example.com"}'
    return Plan(
        stage.target,
        (
            Traffic(kind="new", path="/api/version", workers=2, interval=0.05),
            Traffic(kind="keep-alive", path="/api/version", workers=4, interval=0.05),
            Traffic(kind="keep-alive", path="/api/customers?size=5", workers=1, interval=0.1),
            Traffic(kind="slow", path="/api/slow?seconds=3", workers=2),
            Traffic(kind="body", path="/api/customers", body=customer, check="rest", interval=0.3),
            Traffic(
                kind="page", path="/", interval=0.2, version=r'src="/assets/index-([\w-]+)\.js"'
            ),
            Traffic(kind="events", path="/api/events", seconds=3600, workers=2),
            Traffic(kind="events", path="/api/events", seconds=4),
        ),
    )
