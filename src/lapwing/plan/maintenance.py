"""The maintenance page: an HTML file beside the stack file, or a page with one message."""

from __future__ import annotations

import html
from datetime import UTC, datetime

from lapwing.errors import UsageError
from lapwing.plan.model import MAX_PAGE_BYTES, Maintenance
from lapwing.stack.load import LoadedStack

MESSAGE = "This site is down for maintenance. Please try again later."
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Maintenance</title>
<style>body {{ font: 1.2rem system-ui, sans-serif; margin: 20vh auto; max-width: 36rem; \
padding: 0 1rem; text-align: center }}</style>
<p>{message}</p>
"""


def begin(loaded: LoadedStack, actor: str, message: str | None = None) -> Maintenance:
    """Return maintenance that begins now; a `message` replaces the page. Raises UsageError."""
    page = read_page(loaded) if message is None else _page_of(message)
    return Maintenance(
        actor=actor,
        since=_now(),
        page=_check_size(page, "The message" if message else "The maintenance page"),
        retry_after=loaded.settings.maintenance.retry_after,
        has_message=message is not None,
    )


def default(actor: str) -> Maintenance:
    """Return maintenance that begins now, with the default page."""
    return Maintenance(actor=actor, since=_now(), page=_page_of(MESSAGE))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def read_page(loaded: LoadedStack) -> str:
    """Return the page of the stack file, or the default one. Raises UsageError."""
    file = loaded.settings.maintenance.page
    if file is None:
        return _page_of(MESSAGE)
    path = loaded.folder / file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}, the `page` of `maintenance`, cannot be read.",
            hint="Correct its path, relative to the stack file. It has to be HTML in UTF-8.",
        ) from error
    return _check_size(text, str(path))


def _page_of(message: str) -> str:
    return PAGE.format(message=html.escape(message))


def _check_size(page: str, what: str) -> str:
    if (size := len(page.encode())) > MAX_PAGE_BYTES:
        raise UsageError(
            f"{what} has {size} bytes; a maintenance page may have {MAX_PAGE_BYTES}.",
            hint="Refer to images on another host instead of including them.",
        )
    return page
