"""The scenario of the demo: the changes of the example, step by step, and the expected outcomes.

Each change is a common one: a line is added, a field is renamed on one side only, every request
becomes slow. The release that is rolled back is slow, but does not respond with 500: what a
release responds reaches the client, and no proxy can undo that. What Lapwing promises is that a
slow release loses its traffic within seconds, automatically and without a failed request.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lapwing.commands.demo.sandbox import Sandbox
from lapwing.errors import LapwingError
from lapwing.load.client import Plan
from lapwing.load.worker import Traffic

TITLE = "<Text fw={700}>Company Inc.</Text>"
HEALTHY = 'return jsonify(status="ok")'
TOTAL = "total=page.total"
DELAY_S = 0.8
"""The delay of each request of the slow release; the example allows 0.5 s for 95 % of them."""

DRILL = '''\
"""A slow response, which the demo adds to the example."""

import time

from flask import Blueprint, Response, request

drill = Blueprint("drill", __name__)


@drill.get("/api/slow")
def slow():
    """Send thirty lines over the given seconds."""
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
    time.sleep({DELAY_S})
"""


@dataclass(frozen=True, slots=True)
class Edit:
    """The replacement of a text in a file of the example; without `old`, an addition at its end."""

    file: str
    new: str
    old: str | None = None

    def make(self, folder: Path) -> None:
        """Change the file. Raises LapwingError unless the old text occurs exactly once."""
        path = folder / self.file
        text = path.read_text() if path.exists() else ""
        if self.old is None:
            path.write_text(text + self.new)
            return
        if text.count(self.old) != 1:
            raise LapwingError(
                f"This example does not fit the demo: {self.file} contains "
                f"{text.count(self.old)} times {self.old!r}.",
                hint="Use the example of this version of Lapwing.",
            )
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `edits` are committed, `verb` is run, and `outcome` is expected.

    `services` are those that are built; all by default.
    """

    name: str
    verb: Literal["deploy", "rollback"]
    outcome: str
    edits: tuple[Edit, ...] = ()
    services: tuple[str, ...] = ()
    shown: str = ""
    """The change, in words."""


ADDED = (Edit("api/drill.py", DRILL), Edit("api/app.py", REGISTERED))
"""The additions to the example before the first deployment."""

STEPS = (
    Step(
        "a good change",
        "deploy",
        "succeeded",
        (
            Edit("web/src/App.tsx", TITLE.replace("Inc.", "Inc., second edition"), TITLE),
            Edit("api/api.py", HEALTHY.replace(")", ", edition=2)"), HEALTHY),
        ),
        shown="a new title on the page and a new field in the API, in one switch",
    ),
    Step(
        "a broken change",
        "deploy",
        "failed",
        (Edit("api/api.py", "count=page.total", TOTAL),),
        ("api",),
        shown="the API renames a field that the page needs; a smoke test fails",
    ),
    Step(
        "a slow change",
        "deploy",
        "rolled-back",
        (Edit("api/api.py", TOTAL, "count=page.total"), Edit("api/app.py", SLOW)),
        ("api",),
        shown=f"the API is correct but {DELAY_S:g} s slower; the analysis of live traffic fails",
    ),
    Step(
        "another good change",
        "deploy",
        "succeeded",
        (
            Edit("api/app.py", "", SLOW),
            Edit("api/api.py", "edition=3", "edition=2"),
        ),
        ("api",),
        shown="the delay is removed",
    ),
    Step("a rollback", "rollback", "succeeded", shown="back to the first good change"),
)


def prepare(sandbox: Sandbox) -> None:
    """Write and commit the example as it is before the first step."""
    for edit in ADDED:
        edit.make(sandbox.source)
    sandbox.commit("The example")


def plan(sandbox: Sandbox) -> Plan:
    """Return the load: about 150 requests a second of every kind that the example supports."""
    customer = '{"name": "Demo {unique}", "email": "demo-{unique}@example.com"}'
    return Plan(
        sandbox.target,
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
