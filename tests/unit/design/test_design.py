"""`lapwing diagram` and `lapwing design`: golden cases over the stacks of `infra`, and properties
of the layout of any picture.

LAPWING_GOLDEN_WRITE=1 rewrites the expectations. tests/integration/diagram renders the same texts
with Mermaid. Graphs are golden as Mermaid only: where Graphviz puts a box depends on its version.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lapwing.cli.main import cli
from lapwing.commands.ci_pipeline import workflow_of
from lapwing.design.columns import column_widths
from lapwing.design.diagrams.drawing import QUIET, Drawing, Rect, Text, width_of, wrap
from lapwing.design.diagrams.layout import draw
from lapwing.design.diagrams.model import Band, Box, Flow, Graph, Group, Link, Node, Pie, pie
from lapwing.design.diagrams.pictures import NAMES
from lapwing.design.diagrams.rollout import limits
from lapwing.design.diagrams.rows import arranged
from lapwing.design.diagrams.svg import svg
from lapwing.design.fonts import fallbacks
from lapwing.design.parts import Document, Heading, Origin, Paragraph, Table
from lapwing.design.pdf import pdf, without_glyph
from lapwing.errors import LapwingError, UsageError
from lapwing.inventory.model import Rollout
from lapwing.system.fontconfig import match
from tests.needs import require
from tests.unit.design.subjects import EXAMPLE, FLEETDM
from tests.unit.render.stacks import GOLDEN, cases, compare, stack, written

ON_A_MACHINE = "stack: tiny\nservices: {worker: {build: ./app, command: python work.py}}\n"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-C", str(path.parent), *arguments])


def output_of(path: Path, *arguments: str) -> str:
    result = run(path, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.mark.parametrize("case", cases())
def test_diagrams_match_golden_files(case: str, tmp_path: Path) -> None:
    path = stack(case, tmp_path)
    for form in ("mermaid", "svg"):
        output_of(path, "diagram", "--format", form, "-o", str(tmp_path / "out"))
    placed_by_graphviz = ("architecture.svg", "network.svg")
    names = sorted(p for p in (tmp_path / "out").iterdir() if p.name not in placed_by_graphviz)
    compare(GOLDEN / "diagram" / case, {p.name: p.read_text() for p in names})


def test_document_states_only_backups_that_are_rendered(tmp_path: Path) -> None:
    path = tmp_path / "lapwing.yaml"
    path.write_text(
        "stack: shop\nservices: {app: {image: 'a:1', route: /, needs: [db, sql, own]}}\n"
        "resources:\n  db: {kind: mongodb, backup: true}\n  sql: {kind: mysql, backup: true}\n"
        "  own: {kind: postgres}\nenvironments:\n  production:\n    target: kubernetes\n"
        "    cloud: {provider: gcp, region: us-central1}\n    resources: {own: {managed: true}}\n"
    )
    text = output_of(path, "design")
    data = text[text.index("## Data") : text.index("## Security")]
    rows = {line.split(" | ")[0].strip("| "): line for line in data.splitlines() if "| " in line}
    assert "daily for 7 days" in rows["db"]
    assert "| any moment of the last 7 days | 1 minute at best |" in rows["db"]
    assert "in the cluster" in rows["sql"]
    assert "none by Lapwing" in rows["sql"]
    assert "Cloud SQL with a standby | 10Gi | none | none | all data | failover" in rows["own"]
    assert "Lapwing renders no backup of sql and own" in text


@pytest.mark.parametrize("case", cases())
def test_document_matches_golden_file(case: str, tmp_path: Path) -> None:
    path = stack(case, tmp_path)
    texts = {
        "design.md": output_of(path, "design"),
        "brief.md": output_of(path, "design", "--brief"),
    }
    compare(GOLDEN / "design" / case, texts)


@pytest.mark.parametrize("case", cases())
def test_brief_pdf_has_at_most_two_pages_and_is_reproducible(case: str, tmp_path: Path) -> None:
    path = stack(case, tmp_path)
    files = [tmp_path / "a.pdf", tmp_path / "b.pdf"]
    for file in files:
        output_of(path, "design", "--brief", "-o", str(file))
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.startswith(b"%PDF-")
    assert 1 <= len(re.findall(rb"/Type /Page\b", first)) <= 2


def test_pdf_and_html_have_every_section(tmp_path: Path) -> None:
    path = stack("company-inc", tmp_path)
    output_of(path, "design", "-o", str(tmp_path / "a.pdf"))
    pages = (tmp_path / "a.pdf").read_bytes()
    assert b"FiraSans" in pages
    assert b"/FontFile2" in pages
    output_of(path, "design", "-o", str(tmp_path / "a.html"))
    page = (tmp_path / "a.html").read_text()
    titles = re.findall("^## (.+)$", output_of(path, "design"), re.MULTILINE)
    assert re.findall("<h2>(.+?)</h2>", page) == titles
    assert page.count("<svg") == 5
    assert "<script" not in page
    ET.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


def amounts(text: str) -> list[str]:
    """Each amount of money in a text, as `1,234.56`."""
    return re.findall(r"-?[\d,]+\.\d\d", text)


def table_of(text: str, header: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell; its header begins with a text."""
    lines = text[text.index(f"| {header}") :].partition("\n\n")[0].splitlines()[2:]
    rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {first.removesuffix(" (in use)"): rest for first, *rest in rows}


def test_document_has_the_amounts_of_the_command_that_it_names(tmp_path: Path) -> None:
    path = stack("staging-and-production", tmp_path)
    text = output_of(path, "design")
    one = json.loads(output_of(path, "cost", "-e", "production", "--output", "json"))
    both = json.loads(output_of(path, "cost", "--output", "json"))
    assert "`lapwing cost -e production` lists every item" in text
    ends = ("low", "expected", "high")
    parts = table_of(text, "Part of production")
    assert parts["total"] == [f"{one[end]:,.2f}" for end in ends]
    together = next(line for line in text.splitlines() if " together cost " in line)
    assert amounts(together) == [f"{both[end]:,.2f}" for end in ("low", "high", "expected")]
    options = [table_of(text, f"Savings option of {of}") for of in ("production", "all")]
    assert options[0].keys() == {lever["name"] for lever in one["levers"]}
    assert options[1].keys() == {x["name"] for x in both["levers"]} - options[0].keys()
    for shown, data in zip(options, (one, both), strict=True):
        for lever in data["levers"]:
            if lever["name"] in shown:
                found = amounts(shown[lever["name"]][0])
                assert found[0] == f"{lever['low']:,.2f}"
                assert found[-1] == f"{lever['high']:,.2f}"


@pytest.mark.parametrize(
    ("budget", "remark"),
    [("1000", ""), ("300", "may be over its budget of 300.00"), ("20", "is over its budget of")],
)
def test_exceeded_budget_is_an_open_point(budget: str, remark: str, tmp_path: Path) -> None:
    path = stack("company-inc", tmp_path)
    path.write_text(path.read_text().replace("budget: 245", f"budget: {budget}"))
    text = output_of(path, "design", "--brief")
    points = text[text.index("## Open points") :]
    assert ("budget" in points) == bool(remark)
    assert remark in points


def test_edge_is_in_the_table_of_pods(tmp_path: Path) -> None:
    rows = table_of(output_of(stack("company-inc", tmp_path), "design"), "Service")
    assert rows["edge"][:3] == ["Envoy", "-", "2-3"]


def test_registry_of_the_shared_project_gets_the_images_unless_another_one_is_set(
    tmp_path: Path,
) -> None:
    path = stack("company-inc", tmp_path)
    assert "Built images are in one registry of the shared project" in output_of(path, "design")
    assert "pushes images, commits" in output_of(path, "diagram", "pipeline")
    path.write_text(path.read_text() + "registry: registry.example/team\n")
    text = output_of(path, "design")
    assert "Built images are in the registry registry.example/team." in text
    assert "after a release its semantic version" in text


@pytest.mark.parametrize("path", [EXAMPLE, FLEETDM], ids=["company-inc", "fleetdm"])
def test_pages_of_committed_documents_are_upright_and_the_last_one_is_half_full(
    path: Path, tmp_path: Path
) -> None:
    output_of(path, "design", "-o", str(tmp_path / "x.pdf"))
    made = (tmp_path / "x.pdf").read_bytes()
    assert b"/MediaBox [0 0 841.89 595.28]" not in made
    found = re.findall(rb"stream\r?\n(.+?)\r?\nendstream", made, re.DOTALL)
    packed = (zlib.decompress(f) for f in found if f.startswith(b"x"))
    *_, last = (text for text in packed if b" Td " in text)
    heights = [float(y) for y in re.findall(rb"[-\d.]+ ([-\d.]+) Td", last)]
    assert min(y for y in heights if y > FOOTER_HEIGHT) < A4_HEIGHT / 2


AUTHOR = "Иван Ωmega 漢字 سسس"
ARABIC = (("init", 801), ("medi", 802), ("fina", 803))
"""The forms of a letter in a word, each with a width that no other glyph has."""


def other_font(folder: Path) -> Path:
    """A font with a Chinese character and a letter of Arabic that is joined to its neighbours."""
    letters = {0x6F22: "han", 0x5B57: "zi", 0x633: "seen"}
    forms = {f"seen.{form}": width for form, width in ARABIC}
    glyphs = [".notdef", *letters.values(), *forms]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap(letters)
    pen = TTGlyphPen(None)
    for number, point in enumerate(((0, 0), (0, 500), (500, 500), (500, 0))):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    builder.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    builder.setupHorizontalMetrics({g: (forms.get(g, 800), 0) for g in glyphs})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Others", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    rules = (f"feature {form} {{ sub seen by seen.{form}; }} {form};" for form, _ in ARABIC)
    builder.addOpenTypeFeatures("languagesystem arab dflt;" + "".join(rules))
    folder.mkdir()
    builder.save(folder / "others.ttf")
    config = folder / "fonts.conf"
    config.write_text(
        f"<fontconfig><dir>{folder}</dir><cachedir>{folder}/cache</cachedir></fontconfig>"
    )
    return config


def streams(pdf: bytes) -> bytes:
    """The text of a PDF, and its decompressed streams."""
    found = re.findall(rb"stream\r?\n(.+?)\r?\nendstream", pdf, re.DOTALL)
    return pdf + b"".join(zlib.decompress(f) for f in found if f.startswith(b"x"))


A4_HEIGHT, FOOTER_HEIGHT = 841.89, 40


@pytest.mark.parametrize("case", ["company-inc", "fleet", "smallest", "managed"])
def test_pictures_stay_on_their_pages_and_text_fills_the_first_one(
    case: str, tmp_path: Path
) -> None:
    output_of(stack(case, tmp_path), "design", "-o", str(tmp_path / "x.pdf"))
    made = (tmp_path / "x.pdf").read_bytes()
    found = re.findall(rb"stream\r?\n(.+?)\r?\nendstream", made, re.DOTALL)
    packed = [zlib.decompress(f) for f in found if f.startswith(b"x")]
    pages = [text for text in packed if b" Td " in text]
    assert len(pages) == len(re.findall(rb"/Type /Page\b", made))
    heights = []
    for page in pages:
        points = re.findall(rb"([-\d.]+) ([-\d.]+) (?:[ml]\b|Td)", page)
        heights.append([float(y) for _, y in points])
        assert all(0 < y < A4_HEIGHT for y in heights[-1])
    body = [y for y in heights[0] if y > FOOTER_HEIGHT]
    assert min(body) < A4_HEIGHT / 4


def test_other_scripts_use_a_font_of_the_machine_with_joined_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("fc-match")
    monkeypatch.setenv("FONTCONFIG_FILE", str(other_font(tmp_path / "fonts")))
    origin = Origin("2026-11-29", "1234567", AUTHOR)
    document = Document("Ивану", (Paragraph(str(origin)),), origin)
    assert without_glyph(document) == "漢字س"
    found = fallbacks("漢字س", lambda wanted: match(wanted, os.environ))
    assert [font.path.name for font in found] == ["others.ttf"]
    assert without_glyph(document, found) == ""
    made = streams(pdf(document, fallbacks=found))
    assert b"Others" in made
    assert all(str(width).encode() in made for _, width in ARABIC)


def test_characters_that_no_font_has_are_reported_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without fontconfig."""
    path = stack("smallest", tmp_path)
    git = ("git", "-C", str(tmp_path), "-c", "user.name=漢", "-c", "user.email=i@example.org")
    for command in (("init", "-q"), ("add", "lapwing.yaml"), ("commit", "-qm", "Add the stack")):
        subprocess.run([*git, *command], check=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "dot"):
        if program := shutil.which(name):
            (programs / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(programs))
    result = run(path, "design", "-o", str(tmp_path / "a.pdf"))
    assert result.exit_code == 0, result.output
    assert "No font of this machine has a glyph for 漢: `?` replaces it." in result.output
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")


@given(st.lists(st.lists(st.text("ab ", min_size=1), min_size=2, max_size=2), min_size=1))
def test_columns_of_a_table_fit_their_words_and_fill_the_page(cells: list[list[str]]) -> None:
    columns = [tuple(f"x{text}" for text in column) for column in cells]
    words = [max(len(w) for cell in column for w in cell.split()) for column in columns]
    widths = column_widths(columns, 500.0, len)
    assert sum(widths) == pytest.approx(500)
    if sum(words) + 10 * len(words) < 500:
        assert all(width > word for width, word in zip(widths, words, strict=True))


def test_document_has_date_revision_and_author_of_the_last_commit(tmp_path: Path) -> None:
    path = stack("smallest", tmp_path)
    assert "Revision: uncommitted." in output_of(path, "design")
    who = ("-c", "user.name=Иван", "-c", "user.email=i@example.org")
    git = ("git", "-C", str(tmp_path), *who)
    for command in (("init", "-q"), ("add", "lapwing.yaml"), ("commit", "-qm", "Add the stack")):
        subprocess.run([*git, *command], check=True)
    revision = subprocess.run(
        [*git, "log", "-1", "--format=%cs. Revision: %h"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert f"Date: {revision}. Author: Иван." in output_of(path, "design")
    path.write_text(path.read_text() + "\n")
    assert "with uncommitted changes" in output_of(path, "design")


@pytest.mark.parametrize("missing", ["pygraphviz", "fontpkg_fira_sans"])
def test_missing_extra_is_reported_with_the_command(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stack("smallest", tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    draw.cache_clear()
    result = run(path, "diagram", "architecture", "-o", str(tmp_path / "a.png"))
    assert isinstance(result.exception, LapwingError)
    assert "lapwing-deploy[design]" in str(result.exception.hint)
    assert output_of(path, "design")


def test_machine_has_diagrams_and_document(tmp_path: Path) -> None:
    path = written(ON_A_MACHINE, tmp_path)
    assert "The environment runs on one machine" in output_of(path, "design")
    assert "Agent" in output_of(path, "diagram", "architecture")
    result = run(path, "diagram", "cost")
    assert isinstance(result.exception, UsageError)
    output_of(path, "diagram", "-o", str(tmp_path / "all"))
    names = [n for n in NAMES if n != "cost"]
    assert sorted(p.stem for p in (tmp_path / "all").iterdir()) == sorted(names)


def test_clients_of_the_local_environment_are_on_this_machine(tmp_path: Path) -> None:
    """Envoy listens on loopback there; a server has a `host`."""
    web = "services: {web: {build: ./app, command: run, route: /}}"
    server = "environments: {local: {}, production: {host: a@b.test}}"
    path = written(f"stack: tiny\n{web}\n{server}\n", tmp_path)
    local = output_of(path, "diagram", "network", "-e", "local")
    assert "Clients<br>this machine" in local
    assert "Envoy<br>the only listener, on loopback" in local
    public = output_of(path, "diagram", "network", "-e", "production")
    assert "Clients<br>any address" in public
    assert "Envoy<br>the only public listener" in public


def test_production_on_a_machine_is_the_default(tmp_path: Path) -> None:
    path = written(
        ON_A_MACHINE + "environments: {local: {}, production: {host: a@b.test}}\n", tmp_path
    )
    assert "architecture of production" in output_of(path, "design")


def test_volumes_of_services_are_in_document_and_picture(tmp_path: Path) -> None:
    volumes = ON_A_MACHINE.replace("}}\n", ", volumes: {uploads: /data/uploads}}}\n")
    path = written(volumes, tmp_path)
    row = "| uploads | files of worker, `/data/uploads` | on the machine | - |"
    assert f"{row} none by Lapwing | none | all data | by hand |" in output_of(path, "design")
    path.write_text(volumes + "environments: {local: {backup: daily}}\n")
    saved = f"{row} daily by Lapwing | the last backup | 1 day | `lapwing restore` |"
    assert saved in output_of(path, "design", "-e", "local")
    assert "volume /data/uploads" in output_of(path, "diagram", "architecture")


def test_backup_of_a_database_on_a_machine_depends_on_its_server(tmp_path: Path) -> None:
    database = "resources: {db: {kind: mongodb}}\nenvironments: {local: {backup: daily}}\n"
    text = output_of(written(ON_A_MACHINE + database, tmp_path), "design", "-e", "local")
    assert "| daily by Lapwing, if it starts the server | the last backup | 1 day |" in text
    assert "renders no backup" not in text


LIMITED = """
stack: shop
services:
  shop: {build: ./shop, command: run, route: /}
  admin:
    build: ./shop
    command: run
    route: /admin
    access: {allow: [192.0.2.0/24], basic_auth: USERS}
environments: {production: {host: deploy@203.0.113.7, domain: shop.example}}
"""


def test_access_limits_are_in_the_security_section_and_the_network_picture(tmp_path: Path) -> None:
    path = written(LIMITED, tmp_path)
    limits = "from 192.0.2.0/24 only", "with basic authentication only"
    text = output_of(path, "design")
    security = text[text.index("## Security") : text.index("## Cost")]
    assert f"- admin accepts requests {', '.join(limits)}.\n" in security
    assert "shop accepts requests" not in security
    assert f"admin<br>web<br>{'<br>'.join(limits)}" in output_of(path, "diagram", "network")


def test_deployments_over_ssh_are_stated_for_a_server_only(tmp_path: Path) -> None:
    text = output_of(written(LIMITED, tmp_path), "design")
    assert "reaches the machine over SSH" in text
    assert "CI has no access to the machine" not in text
    assert "CI has no access to the machine" in output_of(written(ON_A_MACHINE, tmp_path), "design")


def test_document_without_assumptions_has_no_heading_for_them(tmp_path: Path) -> None:
    text = LIMITED.replace(
        "domain: shop.example}", "machine: {provider: hetzner, type: cx33, location: fsn1}}"
    )
    found = output_of(written(text, tmp_path), "design")
    assert "US dollars per month" in found
    assert "## Assumptions\n\n\n" not in found
    assert "pie showData" not in found


def test_backup_of_a_managed_database_names_the_product(tmp_path: Path) -> None:
    text = (
        "stack: shop\nservices: {app: {image: 'a:1', route: /, needs: [db]}}\n"
        "resources: {db: {kind: postgres, backup: true}}\n"
        "environments:\n"
        "  cloud: &managed\n    target: kubernetes\n    resources: {db: {managed: true}}\n"
        "    cloud: {provider: gcp, region: us-central1}\n"
        "  kind: {<<: *managed, cloud: null}\n"
    )
    path = written(text, tmp_path)
    assert "| daily by Cloud SQL |" in output_of(path, "design", "-e", "cloud")
    elsewhere = output_of(path, "design", "-e", "kind")
    assert "| outside of the cluster | - | none | none | all data | none |" in elsewhere
    assert "Lapwing renders no backup of db" in elsewhere


def test_equal_rollouts_are_drawn_once(tmp_path: Path) -> None:
    services = "".join(f", s{n}: {{image: 'a:1', route: /s{n}}}" for n in range(8))
    text = (CLUSTER % ", rollouts: true").replace("healthz}}", f"healthz}}{services}}}")
    drawn = output_of(written(text, tmp_path), "diagram", "bluegreen")
    assert drawn.count("Smoke tests") == 1
    assert "api, s0, s1, s2, s3, s4, s5, s6, s7" in drawn
    assert "9 Rollouts, at the same time" in drawn


def test_cluster_is_preferred_to_local(tmp_path: Path) -> None:
    text = ON_A_MACHINE + "environments: {dev: {}, kind: {target: kubernetes}, qa: {}}\n"
    path = written(text, tmp_path)
    assert "architecture of kind" in output_of(path, "design")
    assert "architecture of dev" in output_of(path, "design", "-e", "dev")


def test_png_matches_svg(tmp_path: Path) -> None:
    path = stack("company-inc", tmp_path)
    output_of(path, "diagram", "cost", "-o", str(tmp_path / "cost.png"))
    output_of(path, "diagram", "cost", "-o", str(tmp_path / "cost.svg"))
    image = Image.open(io.BytesIO((tmp_path / "cost.png").read_bytes()))
    root = ET.fromstring((tmp_path / "cost.svg").read_text())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert image.size == (round(width * 2), pytest.approx(height * 2, abs=1))
    colors = image.convert("RGB").getcolors(1 << 20)
    assert colors is not None
    assert {(76, 120, 168), (242, 165, 65)} <= {color for _, color in colors}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("diagram",), "NAME is missing"),
        (("diagram", "network", "--format", "png"), "cannot be printed to the terminal"),
        (("diagram", "network", "-o", "x.jpg"), "does not end with"),
        (
            ("diagram", "network", "--format", "svg", "-o", "x.png"),
            "--format svg does not match x.png",
        ),
        (("design", "-o", "x.doc"), "does not end with"),
    ],
)
def test_invalid_options_are_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = run(stack("smallest", tmp_path), *arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


@pytest.mark.parametrize("verb", [("diagram", "network"), ("design",), ("cost", "--picture")])
def test_unwritable_file_is_reported(verb: tuple[str, ...], tmp_path: Path) -> None:
    path = stack("company-inc", tmp_path)
    (tmp_path / "file").touch()
    target = tmp_path / ("file/x.pdf" if verb == ("design",) else "file/x.svg")
    option = () if verb[-1] == "--picture" else ("-o",)
    result = run(path, *verb, *option, str(target))
    assert isinstance(result.exception, LapwingError)
    assert "cannot be written" in str(result.exception)


words = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=60
)
texts = st.lists(words, min_size=1, max_size=6).map(" ".join)
boxes = st.builds(Box, texts, st.lists(texts, max_size=4).map(tuple))
bands = st.builds(
    Band, st.text("abc ", max_size=30), st.lists(boxes, min_size=1, max_size=13).map(tuple),
    st.booleans(), st.none() | st.text("abc ", max_size=20),
)  # fmt: skip


@given(st.builds(Flow, st.just("x"), texts, st.lists(bands, min_size=1, max_size=5).map(tuple)))
def test_boxes_do_not_overlap_and_contain_their_text(flow: Flow) -> None:
    drawing = draw(flow)
    rects = [s for s in drawing.shapes if isinstance(s, Rect)]
    for number, one in enumerate(rects):
        assert one.x >= 0
        assert one.x + one.width <= drawing.width
        assert one.y + one.height <= drawing.height
        for other in rects[number + 1 :]:
            assert _apart(one, other) or _inside(one, other) or _inside(other, one)
    for text in (s for s in drawing.shapes if isinstance(s, Text) and s.anchor == "middle"):
        home = [r for r in rects if r.y < text.y - text.size * 0.7 and text.y + 1 < r.y + r.height
                and r.x < text.x < r.x + r.width]  # fmt: skip
        frame = min(home, key=lambda r: r.width)
        half = width_of(text.text, text.size, bold=text.bold) / 2
        assert len(text.text) == 1 or frame.x <= text.x - half
    for above, below in pairwise(_lines(drawing)):
        assert above.x != below.x or below.y >= above.y + below.size * 0.9 or below.y <= above.y
    ET.fromstring(svg(drawing))


nodes = st.builds(
    Node, st.uuids().map(str), texts, st.lists(texts, max_size=3).map(tuple),
    st.sampled_from(["", "pods", "database"]), st.just("blue"), st.booleans(),
)  # fmt: skip
groups = st.builds(
    Group, st.uuids().map(str), st.text("abc ", max_size=30),
    st.lists(nodes, min_size=1, max_size=4).map(tuple),
)  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(st.lists(nodes | groups, min_size=1, max_size=5), st.data())
def test_boxes_of_a_graph_do_not_overlap_and_are_in_their_frames(
    members: list[Node | Group], data: st.DataObject
) -> None:
    inner = [n for m in members for n in (m.members if isinstance(m, Group) else (m,))]
    keys = st.sampled_from([m.key for m in (*members, *inner)])
    links = data.draw(st.lists(st.builds(Link, keys, keys, st.text("ab", max_size=9)), max_size=6))
    drawing = draw(Graph("x", "title", tuple(members), tuple(links)))
    boxes = [s for s in drawing.shapes if isinstance(s, Rect) and s.radius in (5, 8)]
    assert len(boxes) == len(inner) + sum(isinstance(m, Group) for m in members)
    for number, one in enumerate(boxes):
        assert one.x >= -0.1
        assert one.x + one.width <= drawing.width + 0.1
        for other in boxes[number + 1 :]:
            assert _apart(one, other) or _inside(one, other) or _inside(other, one)
    for group in (m for m in members if isinstance(m, Group)):
        assert sum(s.text == group.title for s in drawing.shapes if isinstance(s, Text)) >= 1
    ET.fromstring(svg(drawing))


def _lines(drawing: Drawing) -> list[Text]:
    return [s for s in drawing.shapes if isinstance(s, Text) and s.anchor == "middle"]


def _apart(a: Rect, b: Rect) -> bool:
    beside = a.x + a.width <= b.x or b.x + b.width <= a.x
    return beside or a.y + a.height <= b.y or b.y + b.height <= a.y


def _inside(a: Rect, b: Rect) -> bool:
    wide = b.x <= a.x and a.x + a.width <= b.x + b.width
    return wide and b.y <= a.y and a.y + a.height <= b.y + b.height


MANY = "\n".join(
    f"  service-{n}: {{image: 'a:1', route: /{n}, needs: [{'db' if n % 2 else 'db, cache'}]}}"
    for n in range(50)
)
FIFTY = f"""
stack: shop
services:
{MANY}
resources: {{db: {{kind: postgres}}, cache: {{kind: redis}}}}
environments: {{kind: {{target: kubernetes, domain: shop.example}}}}
"""


@pytest.mark.parametrize("name", ["architecture", "network"])
def test_many_services_are_in_rows_that_fit_on_a_page(name: str, tmp_path: Path) -> None:
    path = written(FIFTY, tmp_path)
    output_of(path, "diagram", name, "-o", str(tmp_path / "a.svg"))
    root = ET.fromstring((tmp_path / "a.svg").read_text())
    assert float(root.attrib["width"]) < 900
    shown = [text.text for text in root.iter() if text.tag.endswith("text")]
    assert {f"service-{n}" for n in range(50)} <= set(shown)
    assert shown.count("25 services") == 2
    text = output_of(path, "diagram", name)
    groups = re.findall(r'subgraph (n\d+)\["25 services"\]', text)
    databases = re.findall(r'(n\d+)\["(?:db|cache)<', text)
    drawn = re.findall(r"(n\d+) -->(?:.*\|)? (n\d+)", text)
    found = sorted(sum(pair == (g, d) for pair in drawn for d in databases) for g in groups)
    assert found == [1, 2]


def test_services_with_different_links_keep_all_of_them() -> None:
    boxes = [Node(f"s{n}", f"s{n}") for n in range(9)]
    links = [Link("edge", f"s{n}", f"/{n}") for n in range(9)]
    links += [Link("s0", "db"), Link("s1", "cache"), Link("s1", "db")]
    members, found = arranged(boxes, links)
    group = next(m for m in members if isinstance(m, Group))
    assert [m.key for m in group.members] == [f"s{n}" for n in range(2, 9)]
    drawn = [x for x in found if not x.hidden]
    assert set(drawn) == {Link("edge", group.key), *links[:2], *links[9:]}
    assert arranged(boxes[:6], links) == (tuple(boxes[:6]), links)


@given(texts, st.floats(30, 300))
def test_wrapped_text_fits_and_is_complete(text: str, width: float) -> None:
    lines = list(wrap(text, width, 9))
    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert all(len(line) == 1 or width_of(line, 9) <= width for line in lines)


def test_long_word_is_split_after_a_hyphen() -> None:
    assert list(wrap("notifications-service-eu", 90, 10)) == ["notifications-", "service-eu"]
    box = Box("notificationsforcustomers")
    flow = Flow("x", "x", (Band("x", (box,) * 5, chained=True),))
    assert sum(s.text == box.title for s in draw(flow).shapes if isinstance(s, Text)) == 5


@given(st.lists(st.tuples(words, st.floats(-10, 1e6)), max_size=30))
def test_pie_total_is_sum_of_slices(amounts: list[tuple[str, float]]) -> None:
    found = pie("cost", "Cost", amounts)
    assert len(found.slices) <= 8
    assert found.total == pytest.approx(sum(a for _, a in amounts if a > 0))
    if found.slices:
        ET.fromstring(svg(draw(found)))


def test_pie_of_one_slice_is_a_circle() -> None:
    assert "<circle" in svg(draw(Pie("cost", "Cost", (("api", 3.0),))))


def test_many_services_make_a_longer_pdf() -> None:
    rows = tuple((f"service-{n}", "web", "/x" * 20, "2 to 3", "1", "2Gi", "db") for n in range(200))
    many = Table(("Service", "Kind", "Route", "Replicas", "CPU", "Memory", "Needs"), rows)
    made = pdf(Document("Ωμέγα", (Heading("Services"), many, Paragraph("a `b` 漢字"))))
    assert len(re.findall(rb"/Type /Page\b", made)) > 2


def test_document_changes_with_the_stack(tmp_path: Path) -> None:
    path = stack("company-inc", tmp_path)
    before = output_of(path, "design")
    path.write_text(path.read_text().replace("keep_old: 10m", "keep_old: 20m"))
    assert output_of(path, "design") != before


CLUSTER = """\
stack: tiny
services: {api: {image: "registry.example/api:1", route: /, health: /healthz}}
environments: {kind: {target: kubernetes, domain: tiny.example%s}}
"""


def test_direct_delivery_is_drawn_without_argo_cd(tmp_path: Path) -> None:
    path = written(CLUSTER % ", delivery: direct", tmp_path)
    for name in ("architecture", "pipeline"):
        text = output_of(path, "diagram", name)
        assert "lapwing deploy" in text
        assert "Argo CD" not in text
    document_text = output_of(path, "design")
    assert "`lapwing deploy` creates the commit" in document_text
    assert "Argo CD applies" not in document_text


def test_cluster_rollout_switches_each_service_separately(tmp_path: Path) -> None:
    text = output_of(written(CLUSTER % ", rollouts: true", tmp_path), "diagram", "bluegreen")
    assert "the Service of api selects the new pods" in text
    assert "One update of the routes" not in text
    on_machine = output_of(written(ON_A_MACHINE, tmp_path), "diagram", "bluegreen")
    assert "One update of the routes" in on_machine


PIPELINE = """
stack: tiny
services: {worker: {build: ./app, command: python work.py}}
environments:
  vps: {host: deploy@192.0.2.7}
  vps2: {}
  kind: {target: kubernetes}
"""


def pipeline_of(path: Path, environment: str) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """The titles of the bands of a pipeline, and the arrows between bands."""
    drawn = output_of(path, "diagram", "pipeline", "-e", environment)
    bands = dict(re.findall(r'subgraph (band\d+)\["(.+?)"\]', drawn))
    short = {key: title.partition(":")[0] for key, title in bands.items()}
    arrows = re.findall(r'(band\d+) -->\|"(.+?)"\| (band\d+)', drawn)
    return bands, [(short[a], label, short[b]) for a, label, b in arrows]


def test_pipeline_is_the_one_that_ci_init_writes(tmp_path: Path) -> None:
    path = written(PIPELINE, tmp_path)
    for environment in ("vps", "vps2", "kind"):
        workflow = yaml.safe_load(workflow_of(tmp_path, environment))
        drawn = output_of(path, "diagram", "pipeline", "-e", environment)
        for key, job in workflow["jobs"].items():
            assert f"CI job {key}" in drawn
            assert all(step["name"] in drawn for step in job["steps"] if "name" in step)
        assert drawn.count("CI job") == len(workflow["jobs"])


@pytest.mark.parametrize("host", [True, False])
def test_pipeline_leads_to_the_environment_that_ci_ships(tmp_path: Path, host: bool) -> None:
    text = PIPELINE if host else PIPELINE.replace("{host: deploy@192.0.2.7}", "{}")
    bands, arrows = pipeline_of(written(text, tmp_path), "vps")
    assert arrows == [
        ("Developer", "triggers", "CI job check"),
        ("CI job check", "then", "CI job ship"),
        ("CI job ship", "commits", "Desired state (git)"),
        ("Desired state (git)", "is deployed by", "Deployment to vps"),
    ]
    assert list(bands.values())[-1].startswith("CI job release: pushes, on")


@pytest.mark.parametrize("environment", ["vps2", "kind"])
def test_no_job_of_ci_leads_to_an_environment_that_it_does_not_ship(
    environment: str, tmp_path: Path
) -> None:
    path = written(PIPELINE, tmp_path)
    write_workflow(path)
    _, arrows = pipeline_of(path, environment)
    assert arrows == [
        ("Developer", "triggers", "CI job check"),
        ("CI job check", "then", "CI job ship"),
        ("CI job ship", "then", "CI job release"),
        ("Team", "commits", "Desired state (git)"),
        ("Desired state (git)", "is deployed by", f"Deployment to {environment}"),
    ]


def write_workflow(path: Path, *arguments: str) -> None:
    """Write the workflow of a project."""
    (path.parent / ".git").mkdir()
    source = ("--install-from", "lapwing-deploy==0.1.0")
    output_of(path, "ci", "init", "--forge", "github", *source, *arguments)


def test_pipeline_without_a_workflow_ships_to_the_requested_environment(tmp_path: Path) -> None:
    _, arrows = pipeline_of(written(PIPELINE, tmp_path), "vps2")
    assert ("CI job ship", "commits", "Desired state (git)") in arrows
    assert ("Desired state (git)", "is deployed by", "Deployment to vps2") in arrows


def test_pipeline_follows_the_environment_of_the_existing_workflow(tmp_path: Path) -> None:
    """Also of one for a cluster that Lapwing applies, which `ci init` does not choose."""
    path = written(PIPELINE.replace("kind: {", "kind: {delivery: direct, "), tmp_path)
    write_workflow(path, "-e", "kind")
    _, arrows = pipeline_of(path, "kind")
    assert ("CI job ship", "commits", "Desired state (git)") in arrows
    _, arrows = pipeline_of(path, "vps")
    assert ("CI job ship", "then", "CI job release") in arrows


@pytest.mark.parametrize(
    "command",
    [
        "# was: lapwing ship --environment old\n          lapwing ship --environment vps2",
        "lapwing ship --environment vps2 --verbose",
        "lapwing ship --scan off -e vps2  # was -e vps",
        "lapwing ship \\\n            --environment=vps2",
        "lapwing ship --check -e vps && lapwing ship -e 'vps2'",
        'lapwing ship -e vps --branch "$BRANCH"; lapwing deploy -e vps2',
    ],
)
def test_pipeline_follows_the_environment_of_an_edited_workflow(
    command: str, tmp_path: Path
) -> None:
    path = written(PIPELINE, tmp_path)
    write_workflow(path)
    workflow = tmp_path / ".github/workflows/lapwing.yaml"
    before = "lapwing ship --scan off --environment vps\n"
    text = workflow.read_text().replace("jobs:\n", "# lapwing ship -e vps\njobs:\n")
    assert before in text
    workflow.write_text(text.replace(before, f"{command}\n"))
    _, arrows = pipeline_of(path, "vps2")
    assert ("CI job ship", "commits", "Desired state (git)") in arrows
    _, arrows = pipeline_of(path, "vps")
    assert ("CI job ship", "then", "CI job release") in arrows


@pytest.mark.parametrize(
    ("text", "position"),
    [("jobs:\n  - [\n", ":3:1"), ("jobs: {ship: 1}", ""), ("", ""), ("name: lapwing", "")],
)
def test_existing_workflow_that_is_invalid_is_refused(
    text: str, position: str, tmp_path: Path
) -> None:
    path = written(PIPELINE, tmp_path)
    workflow = tmp_path / ".github/workflows/lapwing.yaml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(text)
    with pytest.raises(UsageError, match=f"lapwing.yaml{position} is not a valid workflow"):
        workflow_of(path.parent, "vps")


def test_existing_workflow_that_is_not_utf_8_is_no_error(tmp_path: Path) -> None:
    path = written(PIPELINE, tmp_path)
    write_workflow(path)
    workflow = tmp_path / ".github/workflows/lapwing.yaml"
    workflow.write_bytes(b"# caf\xe9\n" + workflow.read_bytes())
    _, arrows = pipeline_of(path, "vps")
    assert ("CI job ship", "commits", "Desired state (git)") in arrows


def test_cluster_without_argo_rollouts_is_drawn_as_rolling_update(tmp_path: Path) -> None:
    path = written(CLUSTER % "", tmp_path)
    text = output_of(path, "diagram", "bluegreen")
    assert "rolling update" in text
    assert "Smoke tests" not in text
    assert "Rolling update" in output_of(path, "diagram", "pipeline")
    assert "rolling update" in output_of(path, "design")


@pytest.mark.parametrize("case", cases())
def test_no_line_of_a_graph_passes_through_the_title_of_a_frame(case: str, tmp_path: Path) -> None:
    path = stack(case, tmp_path)
    for name in ("architecture", "network"):
        output_of(path, "diagram", name, "-o", str(tmp_path / f"{name}.svg"))
        shapes = list(ET.fromstring((tmp_path / f"{name}.svg").read_text()))
        last_line = max(n for n, s in enumerate(shapes) if s.attrib.get("stroke") == QUIET)
        titles = [n for n, s in enumerate(shapes) if s.attrib.get("font-size") == "9.5"]
        assert titles
        assert all(number > last_line for number in titles)


def test_alternative_limits_of_an_analysis_are_joined_by_or() -> None:
    wanted = Rollout(max_error_rate=Decimal("0.01"), max_p95_s=Decimal("0.5"))
    assert limits(wanted) == ("more than 1% errors", "or p95 above 500ms")
