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

EXAMPLE = Path(__file__).parents[3] / "tests/golden/cost/company-inc/lapwing.yaml"

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
    expected = sum(line["expected"] or 0 for line in data["lines"])
    assert data["expected"] == pytest.approx(expected, abs=0.001)
    assert data["low"] < data["expected"] < data["high"]
    assert {u["item"] for u in data["unpriced"]} == {
        line["item"] for line in data["lines"] if line["unit_price"] is None
    }
    promised = {"item", "quantity", "unit", "unit_price", "low", "high", "source", "date"}
    assert all(line.keys() >= promised for line in data["lines"])
    assert (data["environment"], data["currency"]) == ("production", "USD")
    cents = round(sum(line["low"] or 0 for line in data["lines"]) * 100)
    assert cents == round(data["low"] * 100)
    assert data["budget"] == 300


def test_cost_text_ends_with_total(lapwing: Lapwing) -> None:
    status, out, err = lapwing("cost")
    assert status == 0
    assert out.splitlines()[0].split()[:2] == ["ITEM", "QUANTITY"]
    total = "production: 250.33 to 672.98 US dollars per month with the shared project, 284.21"
    assert out.splitlines()[-1].startswith(total)
    by_environment = [line.split() for line in out.splitlines() if "273.12" in line]
    assert by_environment[0] == ["production", "244.48", "273.12", "656.33"]
    assert ["total", "250.33", "284.21", "672.98"] in [line.split() for line in out.splitlines()]
    assert "The estimate of production may be over its budget of 300.00." in err


def test_cost_warns_about_exceeded_budget(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "budget: 300", "budget: 285.50")
    assert "The estimate of production may be over its budget of 285.50." in lapwing("cost")[2]
    edit(stack, "budget: 285.50", "budget: 100")
    assert "The estimate of production is over its budget of 100.00." in lapwing("cost")[2]


def test_diff_lists_changes_since_revision(stack: Path, lapwing: Lapwing) -> None:
    status, out, _ = lapwing("cost", "--diff", "HEAD")
    assert (status, out.splitlines()[-1]) == (
        0,
        "0.00 US dollars per month: 250.33 to 672.98 at HEAD, 250.33 to 672.98 now.",
    )
    edit(stack, "min: 2, max: 3, cpu: 70%", "min: 3, max: 3, cpu: 70%")
    _, out, _ = lapwing("cost", "--diff", "HEAD", "--output", "json")
    data = json.loads(out)
    changed = {change["item"]: change["low"] for change in data["changes"]}
    assert changed["api: vCPU"] == pytest.approx(97.46 - 64.97)
    assert sum(changed.values()) == pytest.approx(data["after"]["low"] - data["before"]["low"])
    _, out, _ = lapwing("cost", "--diff", "HEAD", "--output", "markdown")
    assert out.startswith("## Cost: +5.54 to +43.39 US dollars per month")
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


def test_compare_lists_machines_clusters_and_environments(lapwing: Lapwing) -> None:
    _, out, _ = lapwing("cost", "--compare")
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows[0] == "INFRASTRUCTURE"
    assert sorted(rows[1:-4]) == [
        f"one machine ({p})" for p in ("aws", "azure", "digitalocean", "gcp", "hetzner")
    ]
    assert rows[-4:-2] == ["cluster (aws)", "cluster (azure)"]
    assert rows[-2:] == ["staging on spot", "full production"]
    data = json.loads(lapwing("cost", "--compare", "--output", "json")[1])
    assert [d["environment"] for d in data] == rows[1:]


def test_compare_as_markdown(lapwing: Lapwing) -> None:
    status, out, err = lapwing("cost", "--compare", "--output", "markdown")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [
        "| Infrastructure | Low | Expected | High | Unknown |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names[-2:] == ["staging on spot", "full production"]


def test_each_priced_line_has_a_source(lapwing: Lapwing) -> None:
    _, out, err = lapwing("cost")
    table = out.split("\n\n")[0].splitlines()
    assert table[0].split()[-1] == "SOURCE"
    numbers = {line.split()[-1] for line in table[1:]}
    told = {line.split()[0]: line for line in err.splitlines() if line.startswith("[")}
    assert numbers - {"-"} == set(told)
    for row in table[1:]:
        assert (row.split()[-1] == "-") == ("unknown" in row)
    assert told["[1]"].endswith("(derived, 2026-04-30)")


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
        "replicas scaled by load (in use)", "database tier scaled by load (in use)",
        "blue and green in one cluster (in use)", "CDN for static files (in use)",
        "one cluster instead of 2", "scan images in the pipeline",
        "pay per pod (Autopilot) (in use)", "shared NAT gateway (in use)",
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
    assert "full production" in lapwing("cost", "--compare")[1]
    assert lapwing("cost", "--diff", "HEAD")[0] == 0


def test_environment_without_price_is_unknown(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "environments:\n", "environments:\n  kind: {target: kubernetes}\n")
    _, out, _ = lapwing("cost")
    groups = out[out.index("ENVIRONMENT") :].split("\n\n")[0].splitlines()
    assert [row.split() for row in groups if row.startswith("kind")] == [
        ["kind", "unknown", "unknown", "unknown"]
    ]
    assert "| kind | unknown | unknown | unknown |" in lapwing("cost", "--output", "markdown")[1]


def test_compare_and_diff_exclude_each_other(lapwing: Lapwing) -> None:
    assert lapwing("cost", "--compare", "--diff", "HEAD")[0] == 2


def test_compare_works_without_cloud(stack: Path, lapwing: Lapwing) -> None:
    text = (stack / "lapwing.yaml").read_text()
    (stack / "lapwing.yaml").write_text(text[: text.index("environments:")])
    status, out, _ = lapwing("cost")
    assert (status, out) == (0, "local: nothing is billed.\n")
    assert "full production" in lapwing("cost", "--compare")[1]


def test_region_without_price_is_bounded(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "region: us-central1", "region: europe-west99, new_region: true")
    status, out, _ = lapwing("cost")
    assert status == 0
    assert "api: vCPU" in out
    assert "0.0445 to 0.0712" in out
    assert "no price" not in out.splitlines()[-1]
    _, markdown, _ = lapwing("cost", "--output", "markdown")
    assert "no price for europe-west99: between the lowest and the highest of others" in markdown


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


def test_prices_lists_sources_with_their_age(lapwing: Lapwing) -> None:
    status, out, _ = lapwing("cost", "--prices", "--output", "json")
    sources = json.loads(out)["sources"]
    assert status == 0
    assert all(isinstance(s["days"], int) and s["prices"] > 0 and s["date"] for s in sources)
    assert [s["date"] for s in sources] == sorted(s["date"] for s in sources)
    assert "Cloud Billing Catalog" in lapwing("cost", "--prices")[1]


def test_fail_on_budget_exits_with_1_if_expected_exceeds_it(stack: Path, lapwing: Lapwing) -> None:
    assert lapwing("cost", "--fail-on", "budget", "--fail-on", "unpriced")[0] == 0
    edit(stack, "budget: 300", "budget: 200")
    status, _, err = lapwing("cost", "--fail-on", "budget")
    assert status == 1
    assert "The expected cost of production, 284.21 US dollars per month, is over its budget" in err
    edit(stack, "    budget: 200\n", "")
    status, _, err = lapwing("cost", "--fail-on", "budget")
    assert status == 1
    assert "No environment sets `budget`" in err


def test_budget_of_each_environment_is_checked(stack: Path, lapwing: Lapwing) -> None:
    """An environment without a budget does not count, and one below its budget hides no other."""
    edit(stack, "budget: 300", "budget: 400")
    edit(
        stack,
        "environments:\n",
        "environments:\n  plain: {target: kubernetes, cloud: {provider: gcp, region: us-east1}}\n",
    )
    assert lapwing("cost", "--fail-on", "budget")[0] == 0
    edit(stack, "region: us-east1}}", "region: us-east1}, budget: 1}")
    status, _, err = lapwing("cost", "--fail-on", "budget")
    assert status == 1
    assert "US dollars per month, is over its budget of 1.00." in err
    assert "of production are over" not in err


def test_fail_on_unpriced_names_the_items(stack: Path, lapwing: Lapwing) -> None:
    edit(stack, "tier: M10", "tier: M140")
    status, out, err = lapwing("cost", "--fail-on", "unpriced")
    assert status == 1
    assert "No price is recorded for: db: Atlas M140" in err
    assert out.splitlines()[-1].startswith("production: at least ")
    status, _, err = lapwing("cost", "--fail-on", "budget")
    assert status == 1
    assert (
        "The budget of production cannot be checked: no price is recorded for db: Atlas M140" in err
    )
    edit(stack, "budget: 300", "budget: 100")
    status, _, err = lapwing("cost", "--fail-on", "budget")
    assert status == 1
    assert "US dollars per month, is over its budget of 100.00." in err
    assert "cannot be checked" not in err


def test_total_of_lines_without_a_price_is_unknown(stack: Path, lapwing: Lapwing) -> None:
    (stack / "lapwing.yaml").write_text(
        "stack: shop\nservices: {api: {image: 'ghcr.io/example/api:1', route: /}}\n"
        "environments: {kind: {target: kubernetes, domain: shop.example.com}}\n"
    )
    found = json.loads(lapwing("cost", "-e", "kind", "--output", "json")[1])
    assert (found["low"], found["expected"], found["high"]) == (0, None, None)
    assert found["environments"] == [{"name": "kind", "low": 0, "expected": None, "high": None}]


BILL = """\
Service description,SKU description,Project ID,Usage amount,Usage unit,Cost ($),Credits ($)
Kubernetes Engine,Autopilot Pod mCPU Requests (us-central1),company-inc-production,1,hour,70.25,0
Kubernetes Engine,Autopilot Pod Memory Requests (us-central1),company-inc-production,1,hour,20.5,0
Kubernetes Engine,Autopilot Kubernetes Clusters fee,company-inc-production,744,hour,74.40,-74.40
Networking,Cloud NAT Gateway: Uptime charge in us-central1,company-inc-production,1,h,2.04,0
BigQuery,Analysis,company-inc-production,1,TiB,"1,006.25",0
"""


def test_reconcile_compares_with_a_bill_line_by_line(stack: Path, lapwing: Lapwing) -> None:
    (stack / "bill.csv").write_text(BILL)
    bill = str(stack / "bill.csv")
    status, out, _ = lapwing("cost", "--reconcile", bill, "--output", "json")
    found = {x["item"].partition(" (")[0]: x for x in json.loads(out)["compared"]}
    assert status == 0
    pods = found["autopilot.cpu"]
    assert pods["billed"] == 70.25
    assert pods["difference"] == pytest.approx(70.25 - pods["expected"])
    assert (found["gke.cluster"]["expected"], found["gke.cluster"]["billed"]) == (0, 0)
    assert found["NAT gateway"]["difference"] == 0
    assert found["NAT address"]["note"] == "not billed"
    assert found["db: Atlas M10"]["note"] == "not in the bill of Google Cloud"
    other = found["BigQuery: Analysis"]
    assert (other["expected"], other["billed"], other["note"]) == (None, 1006.25, "not estimated")
    assert "BigQuery: Analysis" in lapwing("cost", "--reconcile", bill)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column for service and SKU and cost"),
        ("Service description,SKU description,Cost\nx,y,1.2.3\n", "Line 2 of the bill"),
    ],
)
def test_reconcile_refuses_another_file(
    stack: Path, lapwing: Lapwing, text: str, message: str
) -> None:
    (stack / "bill.csv").write_text(text)
    status, _, err = lapwing("cost", "--reconcile", str(stack / "bill.csv"))
    assert status == 2
    assert message in err
