"""What a stranger does with the example: bring it up, use it, change a line, deploy, and have a
page open all the while."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import jsonschema
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, expect

from tests.e2e.stack.conftest import Deployed

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(900)]

SLOT = {
    "type": ["object", "null"],
    "required": ["slot", "release", "revision", "replicas", "ready"],
    "properties": {
        "slot": {"enum": ["blue", "green"]},
        "release": {"type": "string", "minLength": 1},
        "revision": {"type": "string", "pattern": "^[0-9a-f]{7,40}(-dirty)?$"},
        "replicas": {"type": "integer"},
        "ready": {"type": "integer"},
    },
}
STATUS = {
    "type": "object",
    "required": ["stack", "environment", "url", "services"],
    "properties": {
        "stack": {"type": "string"},
        "environment": {"type": "string"},
        "url": {"type": "string", "pattern": "^https://"},
        "services": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "phase", "active", "idle"],
                "properties": {
                    "name": {"type": "string"},
                    "phase": {"type": "string"},
                    "active": SLOT,
                    "idle": SLOT,
                },
            },
        },
    },
}
"""The shape that other programs count on, from the design."""


class Visitor:
    """A browser with the page open, and what went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.wrong: list[str] = []
        self.streams = 0
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)

    def open(self, name: str) -> Page:
        self.page.goto(f"/?q={name.replace(' ', '+')}")
        expect(self.page.get_by_role("status", name="Connection")).to_have_text("Live")
        return self.page

    def _failed(self, request: Request) -> None:
        # A page that is left gives up what it still asks for; nobody waits for that.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"{request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.url}: {response.status}")

    def _asked(self, request: Request) -> None:
        self.streams += request.url.endswith("/api/events")


@pytest.fixture
def context(browser: Browser, deployed: Deployed) -> Iterator[BrowserContext]:
    """The local authority is not in the browser's store; that its certificates are right is tested
    with a client that trusts it."""
    context = browser.new_context(
        base_url=deployed.url,
        ignore_https_errors=True,
        locale="en-GB",
        viewport={"width": 1280, "height": 900},
    )
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def visitor(context: BrowserContext) -> Visitor:
    return Visitor(context)


@pytest.fixture
def name() -> str:
    return f"Ada {secrets.token_hex(4)}"


def create(page: Page, name: str) -> None:
    page.get_by_role("button", name="New customer").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("E-mail").fill(f"{name.replace(' ', '.').lower()}@example.com")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()


def test_up_prints_the_address_and_status_tells_what_runs(deployed: Deployed) -> None:
    assert deployed.said.strip() == deployed.url
    status = deployed.where.json("status")
    jsonschema.validate(status, STATUS)
    assert (status["stack"], status["environment"]) == (deployed.stack, "local")
    assert status["url"] == deployed.url
    phases = {service["name"]: service["phase"] for service in status["services"]}
    assert phases == {"api": "running", "web": "running", "migrate": "done"}
    ready = {s["name"]: s["active"]["ready"] for s in status["services"] if s["active"]}
    assert ready == {"api": 2, "web": 1}
    (database,) = status["resources"]
    assert database["provider"] == deployed.provider
    assert database["running"] == (True if deployed.provider == "binary" else None)


def test_verify_finds_nothing_wrong(deployed: Deployed) -> None:
    deployed.where.run("verify")


def test_customers_are_created_changed_and_deleted(visitor: Visitor, name: str) -> None:
    page = visitor.open(name)
    create(page, name)
    page.reload()
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_label("Company").fill("Analytical Engines")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name=name)).to_contain_text("Analytical Engines")
    page.reload()
    expect(page.get_by_role("row", name=name)).to_contain_text("Analytical Engines")
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    assert visitor.wrong == []


def test_a_deployment_does_not_disturb_an_open_page(
    context: BrowserContext, visitor: Visitor, deployed: Deployed, name: str
) -> None:
    page = visitor.open(name)
    before = deployed.where.json("status")
    title = f"Company {secrets.token_hex(3)}"
    _edit(deployed, "web/src/App.tsx", "<Text fw={700}>", f"<Text fw={{700}} title={title!r}>")
    _edit(deployed, "api/api.py", 'jsonify(status="ok"', f'jsonify(status="ok", title={title!r}')
    answer = deployed.where.json("deploy")
    assert answer["outcome"] == "succeeded"
    expect(page.get_by_role("status", name="Connection")).to_have_text("Live")

    other = Visitor(context)
    create(other.open(name), name)
    expect(other.page.get_by_title(title)).to_be_visible()
    # The page that was open hears of it on the stream that it opened before the deployment.
    expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    assert visitor.streams == 1
    expect(page.get_by_title(title)).to_have_count(0)
    page.reload()
    expect(page.get_by_title(title)).to_be_visible()
    assert visitor.wrong + other.wrong == []

    after = deployed.where.json("status")
    jsonschema.validate(after, STATUS)
    for old, new in zip(before["services"], after["services"], strict=True):
        if old["active"] is not None:
            assert new["active"]["slot"] != old["active"]["slot"]
            assert new["idle"]["release"] == old["active"]["release"]


def test_a_broken_deployment_does_not_disturb_an_open_page(
    visitor: Visitor, deployed: Deployed, name: str
) -> None:
    page = visitor.open(name)
    before = {s["name"]: s["active"] for s in deployed.where.json("status")["services"]}
    _edit(deployed, "api/api.py", "total=page.total", "count=page.total")
    try:
        answer = deployed.where.json("deploy", "api", status=1)
    finally:
        _edit(deployed, "api/api.py", "count=page.total", "total=page.total")
    assert answer["outcome"] == "failed"
    assert "does not contain 'total'" in answer["reason"]
    create(page, name)
    page.reload()
    expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    assert visitor.wrong == []
    after = {s["name"]: s["active"] for s in deployed.where.json("status")["services"]}
    assert after == before


def test_what_was_entered_is_there_after_down_and_up(
    context: BrowserContext, deployed: Deployed, name: str
) -> None:
    visitor = Visitor(context)
    create(visitor.open(name), name)
    visitor.page.close()
    deployed.where.run("down")
    deployed.where.run("up")
    again = Visitor(context)
    expect(again.open(name).get_by_role("button", name=name, exact=True)).to_be_visible()
    assert again.wrong == []


def _edit(deployed: Deployed, file: str, old: str, new: str) -> None:
    text = (deployed.where.folder / file).read_text()
    assert old in text
    deployed.where.write({file: text.replace(old, new)})
