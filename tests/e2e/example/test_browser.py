"""The example as people use it, in a browser.

The tests share one running example; each works on a customer of its own name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

pytestmark = [pytest.mark.xdist_group("example"), pytest.mark.timeout(900)]


@pytest.fixture
def context(browser: Browser, example_url: str) -> Iterator[BrowserContext]:
    """A visitor; the local certificate is not in the browser's store."""
    context = browser.new_context(
        base_url=example_url,
        ignore_https_errors=True,
        locale="en-GB",
        viewport={"width": 1280, "height": 900},
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def name() -> str:
    return f"Ada {secrets.token_hex(4)}"


@pytest.fixture
def page(context: BrowserContext, name: str) -> Page:
    return opened(context, name)


def opened(context: BrowserContext, name: str) -> Page:
    """A page that shows the customers of that name only, and is live."""
    page = context.new_page()
    page.goto(f"/?q={name.replace(' ', '+')}")
    expect(page.get_by_role("status", name="Connection")).to_have_text("Live")
    return page


def create(page: Page, name: str, email: str | None = None) -> None:
    page.get_by_role("button", name="New customer").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("E-mail").fill(email or email_of(name))
    save(page)


def email_of(name: str) -> str:
    return f"{name.replace(' ', '.').lower()}@example.com"


def save(page: Page) -> None:
    page.get_by_role("button", name="Save").click()


def entry(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_a_new_customer_is_listed_and_stays(page: Page, name: str) -> None:
    create(page, name)
    expect(page.get_by_text(f"{name} is saved.")).to_be_visible()
    expect(entry(page, name)).to_be_visible()
    page.reload()
    expect(entry(page, name)).to_be_visible()
    expect(page.get_by_text("1 customer", exact=True)).to_be_visible()


def test_errors_are_shown_where_they_are(page: Page, name: str) -> None:
    create(page, " ", "ada")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Enter a name.")).to_be_visible()
    expect(dialog.get_by_text("Enter an address such as")).to_be_visible()
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("E-mail").fill(email_of(name))
    save(page)
    expect(entry(page, name)).to_be_visible()


def test_an_error_that_only_the_api_knows_is_shown_at_its_field(page: Page, name: str) -> None:
    create(page, name)
    expect(entry(page, name)).to_be_visible()
    create(page, f"{name} again", email_of(name))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Another customer has this address.")).to_be_visible()
    expect(dialog.get_by_label("E-mail")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(entry(page, f"{name} again")).to_have_count(0)


def test_a_change_is_stored_and_signed(page: Page, name: str) -> None:
    page.get_by_role("button", name="Who are you?").click()
    page.get_by_label("Your name").fill("Grace")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Grace")).to_be_visible()
    create(page, name)
    entry(page, name).click()
    page.get_by_label("Company").fill("Analytical Engines")
    page.get_by_label("Status").last.select_option("active")
    save(page)
    row = page.get_by_role("row", name=name)
    expect(row).to_contain_text("Analytical Engines")
    expect(row).to_contain_text("by Grace")
    page.reload()
    expect(row).to_contain_text("Active")


def test_of_two_editors_none_overwrites_the_other(
    context: BrowserContext, page: Page, name: str
) -> None:
    create(page, name)
    other = opened(context, name)
    for editor, company in ((page, "Engines"), (other, "Looms")):
        entry(editor, name).click()
        editor.get_by_label("Company").fill(company)
    save(page)
    expect(page.get_by_role("dialog")).to_be_hidden()
    save(other)
    alert = other.get_by_role("alert")
    expect(alert).to_contain_text("changed this customer while you had it open")
    expect(alert).to_contain_text("Engines")
    other.get_by_role("button", name="Keep my values").click()
    save(other)
    expect(other.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("row", name=name)).to_contain_text("Looms")


def test_a_deleted_customer_is_gone_after_a_question(page: Page, name: str) -> None:
    create(page, name)
    entry(page, name).click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text(f"{name} is deleted.")).to_be_visible()
    expect(page.get_by_text("No customer matches")).to_be_visible()


def test_another_open_page_sees_every_change(
    context: BrowserContext, page: Page, name: str
) -> None:
    other = opened(context, name)
    create(page, name)
    expect(entry(other, name)).to_be_visible()
    entry(page, name).click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(entry(other, name)).to_have_count(0)


def test_a_file_is_imported(page: Page, name: str) -> None:
    page.get_by_role("button", name="CSV").click()
    file = f"name,email\n{name},{email_of(name)}\n{name},nobody\n"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("menuitem", name="Import a file").click()
    chooser.value.set_files(
        {"name": "customers.csv", "mimeType": "text/csv", "buffer": file.encode()}
    )
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 imported, 0 known already, 1 left out:")
    expect(dialog).to_contain_text("Line 3: Enter an address")
    page.keyboard.press("Escape")
    expect(entry(page, name)).to_be_visible()


def test_a_failure_is_said_and_can_be_tried_again(page: Page, name: str) -> None:
    create(page, name)
    expect(entry(page, name)).to_be_visible()
    page.route("**/api/customers?*", lambda route: route.abort())
    page.get_by_label("Search").fill(f"{name} ")
    page.get_by_label("Search").fill(name[:-1])
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    page.unroute("**/api/customers?*")
    page.get_by_role("button", name="Try again").click()
    expect(alert).to_be_hidden()
    expect(entry(page, name)).to_be_visible()


def test_offline_is_said_and_passes(context: BrowserContext, page: Page) -> None:
    context.set_offline(True)
    expect(page.get_by_text("You are offline")).to_be_visible()
    context.set_offline(False)
    expect(page.get_by_text("You are offline")).to_be_hidden()


def test_the_page_fits_a_phone(browser: Browser, context: BrowserContext, page: Page) -> None:
    name = f"Ada{'a' * 60}"
    create(page, name, f"{secrets.token_hex(20)}@{'long-' * 8}name.example")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/")
    expect(page.get_by_role("listitem").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_page_names_the_release_that_answers(page: Page) -> None:
    answered = page.request.get("/api/version").json()["release"]
    expect(page.get_by_test_id("release")).to_contain_text(answered)
