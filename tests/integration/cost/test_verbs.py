"""`lapwing cost` and `lapwing review` from the command line, on a real git repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lapwing.cli.main import run

EXAMPLE = Path(__file__).parents[3] / "examples/company-inc/lapwing.yaml"

Lapwing = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """The example's stack file in a git repository with one commit and empty sources."""
    folder = tmp_path / "shop"
    for source in ("api", "web"):
        (folder / source).mkdir(parents=True)
    shutil.copy(EXAMPLE, folder / "lapwing.yaml")
    git(folder, "init", "--quiet")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "First")
    return folder


def git(folder: Path, *arguments: str) -> None:
    """Run git with a name of its own."""
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True)


@pytest.fixture
def lapwing(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Lapwing:
    """Run a verb on the stack: exit status, stdout, stderr."""
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(["-C", str(stack), *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def edit(stack: Path, old: str, new: str) -> None:
    """Change the stack file."""
    path = stack / "lapwing.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_cost_json_has_documented_shape(lapwing: Lapwing) -> None:
    status, out, _ = lapwing("cost", "--output", "json")
    data: dict[str, Any] = json.loads(out)
    assert status == 0
    totals = {"low", "expected", "high"}
    assert data.keys() >= {"environment", "currency", "unpriced", "lines"} | totals
    assert data["expected"] == pytest.approx((data["low"] + data["high"]) / 2, abs=0.01)
    assert {u["item"] for u in data["unpriced"]} == {
        line["item"] for line in data["lines"] if line["unit_price"] is None
    }
    promised = {"item", "quantity", "unit", "unit_price", "low", "high", "source", "date"}
    assert all(line.keys() >= promised for line in data["lines"])
    assert (data["environment"], data["currency"]) == ("production", "USD")
    cents = round(sum(line["low"] or 0 for line in data["lines"]) * 100)
    assert cents == round(data["low"] * 100)
    assert data["budget"] == 245


def test_cost_text_ends_with_total(lapwing: Lapwing) -> None:
    status, out, err = lapwing("cost")
    assert status == 0
    assert out.splitlines()[0].split()[:2] == ["ITEM", "QUANTITY"]
    assert out.splitlines()[-1].startswith("production: 194.39 to 242.47 US dollars per month")
    assert "db: Atlas backups: unknown" in err
    assert "budget" not in err


def test_cost_warns_about_exceeded_budget(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "budget: 245", "budget: 200.50")
    assert "The estimate may be over the budget of 200.50." in lapwing("cost")[2]
    edit(stack, "budget: 200.50", "budget: 100")
    assert "The estimate is over the budget of 100.00." in lapwing("cost")[2]


def test_diff_lists_changes_since_revision(stack: Path, lapwing: Lapwing) -> None:
    status, out, _ = lapwing("cost", "--diff", "HEAD")
    assert (status, out.splitlines()[-1]) == (
        0,
        "0.00 US dollars per month: 194.39 to 242.47 at HEAD, 194.39 to 242.47 now.",
    )
    edit(stack, "min: 2, max: 3, cpu: 70%", "min: 3, max: 3, cpu: 70%")
    _, out, _ = lapwing("cost", "--diff", "HEAD", "--output", "json")
    data = json.loads(out)
    changed = {change["item"]: change["low"] for change in data["changes"]}
    assert changed["api: vCPU"] == pytest.approx(97.46 - 64.97)
    assert sum(changed.values()) == pytest.approx(data["after"]["low"] - data["before"]["low"])
    _, out, _ = lapwing("cost", "--diff", "HEAD", "--output", "markdown")
    assert out.startswith("## Cost: 0.00 to +39.68 US dollars per month")
    assert "| production: api: vCPU | 64.97 to 97.46 | 97.46 |" in out


def test_diff_of_new_environment_starts_at_zero(stack: Path, lapwing: Lapwing) -> None:
    edit(
        stack,
        "environments:\n",
        "environments:\n  qa:\n    target: kubernetes\n"
        "    cloud: {provider: gcp, region: us-central1}\n",
    )
    status, out, _ = lapwing("cost", "-e", "qa", "--diff", "HEAD")
    assert status == 0
    assert "0.00 at HEAD" in out.splitlines()[-1]


@pytest.mark.parametrize("revision", ["nope", "-x", "HEAD:x", "", "HEAD^5"])
def test_diff_refuses_invalid_revision(lapwing: Lapwing, revision: str) -> None:
    status, out, err = lapwing("cost", "--diff", revision)
    assert status in (1, 2)
    assert out == ""
    assert "revision" in err
    assert "Traceback" not in err


def test_diff_refuses_invalid_file_at_revision(stack: Path, lapwing: Lapwing) -> None:
    good = (stack / "lapwing.yaml").read_text()
    (stack / "lapwing.yaml").write_text("stack: shop\nservises: {}\n")
    git(stack, "commit", "--quiet", "-am", "Broken")
    (stack / "lapwing.yaml").write_text(good)
    status, out, err = lapwing("cost", "--diff", "HEAD")
    assert (status, out) == (1, "")
    assert "The stack file at HEAD is invalid" in err
    assert "2: Unknown key `servises`." in err


def test_diff_needs_git_repository(stack: Path, lapwing: Lapwing) -> None:
    shutil.rmtree(stack / ".git")
    status, _, err = lapwing("cost", "--diff", "HEAD")
    assert status == 1
    assert "not in a git repository" in err


def test_compare_lists_three_infrastructures(lapwing: Lapwing) -> None:
    _, out, _ = lapwing("cost", "--compare")
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows == ["INFRASTRUCTURE", "one machine", "staging on spot", "full production"]
    data = json.loads(lapwing("cost", "--compare", "--output", "json")[1])
    assert [d["environment"] for d in data] == rows[1:]


def test_compare_as_markdown(lapwing: Lapwing) -> None:
    status, out, err = lapwing("cost", "--compare", "--output", "markdown")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["| Infrastructure | Low | High | Unknown |", "| --- | ---: | ---: | --- |"]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "one machine", "staging on spot", "full production",
    ]  # fmt: skip


def test_each_priced_line_has_a_source(lapwing: Lapwing) -> None:
    _, out, err = lapwing("cost")
    table = out.split("\n\n")[0].splitlines()
    assert table[0].split()[-1] == "SOURCE"
    numbers = {line.split()[-1] for line in table[1:]}
    told = {line.split()[0]: line for line in err.splitlines() if line.startswith("[")}
    assert numbers - {"-"} == set(told)
    for row in table[1:]:
        assert (row.split()[-1] == "-") == ("unknown" in row)
    assert told["[1]"].endswith("(derived, 2026-11-24)")


def test_cost_lists_savings_options(stack: Path, lapwing: Lapwing) -> None:
    edit(
        stack,
        "environments:\n",
        "environments:\n  staging:\n    target: kubernetes\n"
        "    cloud: {provider: gcp, region: us-east1}\n",
    )
    _, out, _ = lapwing("cost")
    levers = out[out.index("SAVINGS OPTION") :].split("\n\n")[0].splitlines()[1:]
    saved = {line.rpartition("  ")[0].strip(): line.rpartition("  ")[2] for line in levers}
    assert set(saved) == {
        "spot pods for staging", "commitment for 1 year", "commitment for 3 years",
        "CDN for static files (in use)", "one cluster instead of 2",
        "scan images in the pipeline",
    }  # fmt: skip
    data = json.loads(lapwing("cost", "--output", "json")[1])
    (spot,) = (x for x in data["levers"] if x["name"] == "spot pods for staging")
    edit(stack, "region: us-east1}\n", "region: us-east1}\n    spot: true\n")
    after = json.loads(lapwing("cost", "--output", "json")[1])
    assert data["low"] - after["low"] == pytest.approx(spot["low"])
    assert "### Savings options" in lapwing("cost", "--output", "markdown")[1]


@pytest.mark.parametrize("target", ["kubernetes", "machine"])
def test_item_without_price_is_unknown(target: str, stack: Path, lapwing: Lapwing) -> None:
    text = (stack / "lapwing.yaml").read_text()
    text = text[: text.index("environments:")] + f"environments: {{qa: {{target: {target}}}}}\n"
    (stack / "lapwing.yaml").write_text(text)
    status, out, err = lapwing("cost")
    assert status == 0
    assert out.splitlines()[-1].startswith("qa: unknown: Lapwing has no price for any line.")
    assert ("kind or minikube" in err) == (target == "kubernetes")
    data = json.loads(lapwing("cost", "--output", "json")[1])
    assert [line["low"] for line in data["lines"]] == [None]
    assert "**Unknown: Lapwing" in lapwing("cost", "--output", "markdown")[1]
    assert lapwing("cost", "--picture", str(stack / "cost.svg"))[0] == 0
    assert lapwing("cost", "--compare")[0] == 2
    assert lapwing("cost", "--diff", "HEAD")[0] == 0


def test_environment_without_price_is_unknown(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "environments:\n", "environments:\n  kind: {target: kubernetes}\n")
    _, out, _ = lapwing("cost")
    groups = out[out.index("ENVIRONMENT") :].split("\n\n")[0].splitlines()
    assert [row.split() for row in groups if row.startswith("kind")] == [
        ["kind", "unknown", "unknown"]
    ]
    assert "| kind | unknown | unknown |" in lapwing("cost", "--output", "markdown")[1]


def test_compare_and_diff_exclude_each_other(lapwing: Lapwing) -> None:
    assert lapwing("cost", "--compare", "--diff", "HEAD")[0] == 2


def test_compare_needs_cloud(stack: Path, lapwing: Lapwing) -> None:
    text = (stack / "lapwing.yaml").read_text()
    (stack / "lapwing.yaml").write_text(text[: text.index("environments:")])
    status, out, _ = lapwing("cost")
    assert (status, out) == (0, "local: nothing is billed.\n")
    assert lapwing("cost", "--compare")[0] == 2


def test_region_without_price_is_unknown(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "us-central1", "europe-west9")
    status, out, err = lapwing("cost")
    assert status == 0
    assert "api: vCPU" in out
    assert "no price for europe-west9; there is one for asia-east1, us-central1, us-east1" in err


def test_unknown_region_is_refused(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "us-central1", "us-centrl1")
    for verb in (("check",), ("cost",), ("review",)):
        status, out, err = lapwing(*verb)
        assert (status, out) == (2, "")
        assert "'us-centrl1' is not a region of Google Cloud." in err
        assert "Did you mean `us-central1`?" in err


def test_bar_chart_is_written(tmp_path: Path, lapwing: Lapwing) -> None:
    path = tmp_path / "cost.svg"
    assert lapwing("cost", "--picture", str(path))[0] == 0
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert lapwing("cost", "--picture", str(tmp_path / "new/folder/cost.svg"))[0] == 0
    assert (tmp_path / "new/folder/cost.svg").read_bytes() == path.read_bytes()
    assert lapwing("cost", "--picture", str(path / "in/a/file.svg"))[0] == 1
    status, out, err = lapwing("cost", "--picture", str(tmp_path / "cost.png"))
    assert (status, out) == (2, "")
    assert "does not end with .svg" in err
    assert not (tmp_path / "cost.png").exists()


def test_unknown_environment_is_refused(lapwing: Lapwing) -> None:
    status, _, err = lapwing("cost", "-e", "producton")
    assert status == 2
    assert "Did you mean `production`?" in err


def test_review_json_has_documented_shape(lapwing: Lapwing) -> None:
    status, out, _ = lapwing("review", "--output", "json")
    findings = json.loads(out)
    assert status == 0
    assert all(f.keys() >= {"rule", "severity", "evidence", "advice", "saves"} for f in findings)
    assert {f["severity"] for f in findings} == {"info"}


def test_fail_on_sets_exit_status(stack: Path, lapwing: Lapwing) -> None:
    assert lapwing("review", "--fail-on", "warning")[0] == 0
    assert lapwing("review", "--fail-on", "info")[0] == 1
    edit(stack, "tier: M10, backup: true", "tier: M10")
    assert lapwing("review")[0] == 0
    status, out, err = lapwing("review", "--fail-on", "critical")
    assert status == 1
    assert out.startswith("critical: risk/no-backup (production)\n  lapwing.yaml:")
    assert err.startswith("1 critical, 0 warning,")


def test_review_reads_measurements_file(tmp_path: Path, lapwing: Lapwing) -> None:
    path = tmp_path / "measured.json"
    record = {"cpu": 0.1, "memory": 300_000_000, "hours": 48}
    path.write_text(json.dumps({"production": {"api": record}}))
    _, out, _ = lapwing("review", "--measured", str(path))
    assert "sizing/too-large (production)" in out
    assert "Request 140m and 384Mi." in out
    path.write_text("{")
    assert lapwing("review", "--measured", str(path))[0] == 2
    assert lapwing("review", "--measured", str(tmp_path / "none.json"))[0] == 2
