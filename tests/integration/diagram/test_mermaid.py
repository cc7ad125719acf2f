"""A real Mermaid (the library, in Chromium) reads and draws every text that `lapwing diagram`
writes, with each label as it was meant."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from lapwing.design.diagrams.drawing import SLICES
from lapwing.design.diagrams.mermaid import mermaid
from lapwing.design.diagrams.model import Band, Box, Flow, Pie
from tests.needs import require
from tests.unit.render.stacks import GOLDEN

COLORS = """() => Array.from(document.querySelectorAll('rect, path, polygon, span, p')).flatMap(
  e => { const s = getComputedStyle(e); return [s.fill, s.stroke, s.color]; })"""
LIBRARY = "mermaid@12.3.0"
DRAW = "async ([id, text]) => (await mermaid.render(id, text)).svg"
READ = """([svg]) => {
  document.body.innerHTML = svg;
  const found = document.body.querySelectorAll('.nodeLabel, .edgeLabel, .legend text, text');
  return Array.from(found).map(e => e.innerText || e.textContent);
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page with Mermaid in it."""
    npm, chromium = require("npm"), require("chromium")
    folder = tmp_path_factory.mktemp("mermaid")
    subprocess.run([npm, "pack", "--silent", LIBRARY], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        tar.extract("package/dist/mermaid.min.js", folder, filter="data")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        found = browser.new_page()
        found.set_content("<body></body>")
        found.add_script_tag(path=folder / "package/dist/mermaid.min.js")
        found.evaluate("() => mermaid.initialize({startOnLoad: false})")
        yield found
        browser.close()


def labels(page: Any, text: str) -> str:
    """Draw a text and read what it shows, without blanks."""
    svg = page.evaluate(DRAW, ["picture", text])
    return "".join("".join(page.evaluate(READ, [svg])).split())


@pytest.mark.parametrize(
    "case", sorted(p.name for p in (GOLDEN / "diagram").iterdir() if p.is_dir())
)
def test_mermaid_draws_golden_diagrams(page: Any, case: str) -> None:
    for path in sorted((GOLDEN / "diagram" / case).glob("*.mmd")):
        text = path.read_text()
        written = re.findall(r'\["(.*?)"\]|\|"(.*?)"\||^  "(.*?)" :', text, re.MULTILINE)
        lines = [line for groups in written for group in groups for line in group.split("<br>")]
        shown = labels(page, text)
        assert len(lines) > 1
        assert [line for line in lines if "".join(line.split()) not in shown] == [], path.name


@pytest.mark.parametrize("theme", ["default", "dark"])
def test_colors_do_not_depend_on_the_theme_of_the_forge(page: Any, theme: str) -> None:
    """Gitea and GitHub draw with the theme of the reader."""
    page.evaluate("theme => mermaid.initialize({startOnLoad: false, theme})", theme)
    for name, wanted in (("cost", SLICES[:3]), ("architecture", ("#ffffff", "#7dbb92", "#1f2933"))):
        text = (GOLDEN / f"diagram/company-inc/{name}.mmd").read_text()
        svg = page.evaluate(DRAW, ["picture", text])
        page.evaluate("svg => { document.body.innerHTML = svg; }", svg)
        found = set(page.evaluate(COLORS))
        rgb = {f"rgb({', '.join(str(c) for c in bytes.fromhex(w[1:]))})" for w in wanted}
        assert rgb <= found, name


def test_mermaid_special_characters_are_escaped(page: Any) -> None:
    odd = 'a "b" <c> #35; `d` & [e] {f} |g| --> end %% h; x_y *z*'
    flow = Flow(
        "x", 'odd: "title"', (Band(odd, (Box(odd, (odd,)),), to_next=odd), Band("b", (Box("c"),)))
    )
    shown = labels(page, mermaid(flow))
    assert shown.count("".join(odd.split())) >= 4
    pie = Pie("cost", "odd", (("a: <b> #1", 3.0), ("c", 2.5)))
    assert "a:<b>#1" in labels(page, mermaid(pie))


def test_mermaid_refuses_invalid_text(page: Any) -> None:
    text = (GOLDEN / "diagram/company-inc/architecture.mmd").read_text()
    with pytest.raises(Exception, match=r"(?i)parse|lexical|syntax"):
        labels(page, text.replace('["', '["" '))
