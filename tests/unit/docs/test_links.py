"""Links between the Markdown pages lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*/README.md", "stacks/*/README.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    text = re.sub(r"(?ms)^(```|~~~).*?^\1", "", page.read_text())
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.+)$", text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip()
        found |= {slug.replace(" ", "-"), re.sub(r"[-\s]+", "-", slug)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    text = re.sub(r"(?ms)^(```|~~~).*?^\1|`[^`\n]*`", "", page.read_text())
    broken = []
    for link in LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_paths_in_contributing_exist() -> None:
    """A path is one in the table of "Where to find the code", or one with a slash in the text."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = [p for p in re.findall(r"`([\w./-]+)`", text) if "/" in p or p.endswith(".md")]
    assert len(paths) > 25
    folders = (ROOT, ROOT / "src/lapwing")
    assert [p for p in paths if not any((folder / p).exists() for folder in folders)] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    site = (ROOT / "zensical.toml").read_text()
    pages = {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")}
    assert {p for p in pages if not p.startswith("decisions/0")} == set(
        re.findall(r'"([\w/-]+\.md)"', site)
    )
