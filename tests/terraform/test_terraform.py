"""A real Terraform reads, validates and plans every golden cloud, and checkov finds nothing in the
plans but what the files give a reason for.

The providers are schemas of the real ones without the cloud behind them (`published_schema.py`
says what that catches); run by `make test-terraform`. checkov does not read `.tf.json`, so it reads
the plan, and exceptions (`checkov:skip=CHECK:reason` in a comment) are counted here: one that no
finding needs is a failure, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.needs import require
from tests.unit.render.stacks import STACKS, cases

SUBJECTS = [f"repo:company/app:ref:refs/heads/{branch}" for branch in ("main", "next")]
VARIABLES = {
    "billing_account": "000000-AAAAAA-000000",
    "ci_subjects": json.dumps(SUBJECTS),
    "atlas_organization_id": "0123456789abcdef01234567",
    "edge_zones": '{"production": ["europe-west1-b"], "staging": ["europe-west1-b"]}',
    "authorized_networks": '{"office": "192.0.2.0/24"}',
    "cloud_armor": "true",
    "collect_tagged": "true",
}
CLOUDS = [
    (case, root.name)
    for case in cases()
    for root in sorted((STACKS / case / "expected").iterdir())
    if root.is_dir()
]


class Terraform:
    """A real Terraform in a root, with the providers of the mirror and a local state."""

    def __init__(self, root: Path, schemas: Path) -> None:
        self.root = root
        settings = root / ".terraformrc"
        mirror = json.dumps(str(schemas / "providers"))
        settings.write_text(
            "disable_checkpoint = true\n"
            f"provider_installation {{\n  filesystem_mirror {{ path = {mirror} }}\n}}\n"
        )
        (root / "zz_override.tf.json").write_text('{"terraform": {"backend": {"local": {}}}}')
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TF_")},
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1",
            "LAPWING_TEST_SENT": str(root / "sent"),
            **{f"TF_VAR_{name}": value for name, value in VARIABLES.items()},
        }

    def __call__(self, *arguments: str) -> str:
        """Run a verb. Fails the test with what Terraform says."""
        program = require("terraform")
        done = subprocess.run(
            [program, *arguments, "-no-color"],
            cwd=self.root, env=self.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def terraform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terraform]:
    case, root = request.param
    require("terraform")
    schemas = Path(require("terraform-schemas"))
    shutil.copytree(STACKS / case / "expected" / root, tmp_path / root)
    found = Terraform(tmp_path / root, schemas)
    found("init", "-input=false")
    yield found
    shutil.rmtree(tmp_path / root / ".terraform")


@pytest.mark.parametrize("terraform", CLOUDS, indirect=True, ids=map("-".join, CLOUDS))
def test_rendered_terraform_is_valid_and_passes_checkov(terraform: Terraform) -> None:
    told = json.loads(terraform("validate", "-json"))
    assert told["diagnostics"] == []
    terraform("plan", "-input=false", "-refresh=false", "-out=plan.bin")
    plan = json.loads(terraform("show", "-json", "plan.bin"))
    assert {change for r in plan["resource_changes"] for change in r["change"]["actions"]} <= {
        "create",
        "read",
    }
    (terraform.root / "plan.json").write_text(json.dumps(plan))
    assert findings(terraform.root) == exceptions(terraform.root)


@pytest.mark.parametrize("terraform", [("smallest", "shared")], indirect=True, ids=["smallest"])
def test_shared_root_grants_each_ci_subject(terraform: Terraform) -> None:
    """Jobs of Gitea have no OpenID Connect token: they use a key of the service account."""
    terraform("plan", "-input=false", "-refresh=false", "-out=plan.bin")
    plan = json.loads(terraform("show", "-json", "plan.bin"))
    granted = {r.get("index") for r in plan["resource_changes"] if r["name"] == "ci"}
    assert set(SUBJECTS) <= granted
    [provider] = [r for r in plan["resource_changes"] if r["type"].endswith("pool_provider")]
    condition = provider["change"]["after"]["attribute_condition"]
    assert condition == " || ".join(f'assertion.sub == "{subject}"' for subject in SUBJECTS)
    del terraform.environ["TF_VAR_ci_subjects"]
    terraform("plan", "-input=false", "-refresh=false", "-out=plan.bin")
    plan = json.loads(terraform("show", "-json", "plan.bin"))
    kinds = {r["type"] for r in plan["resource_changes"] if r["name"] == "ci"}
    assert kinds == {"google_service_account", "google_artifact_registry_repository_iam_member"}


@pytest.mark.parametrize("terraform", CLOUDS[:1], indirect=True)
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('"name": "', '"nmae": "', "No argument or block type is named"),
        ("google_project.main.", "google_project.mian.", "undeclared resource"),
        ('"auto_create_network": false', '"auto_create_network": "perhaps"', "bool"),
    ],
)
def test_validation_detects_mistakes(
    terraform: Terraform, right: str, wrong: str, told: str
) -> None:
    path = terraform.root / "project.tf.json"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(AssertionError, match=told):
        terraform("validate", "-json")


def sent(root: Path) -> dict[str, set[str]]:
    """The passwords that write-only arguments sent, by the kind of the resource."""
    found: dict[str, set[str]] = {}
    for line in (root / "sent").read_text().splitlines():
        kind, _, text = line.partition(" ")
        password = re.search(r"://app:(.+)@", text)
        found.setdefault(kind, set()).add(password[1] if password else text)
    return found


@pytest.mark.parametrize("terraform", [("managed", "staging")], indirect=True, ids=["managed"])
def test_interrupted_apply_is_continued_with_the_same_password(terraform: Terraform) -> None:
    state = json.loads((terraform.root / "managed.tf.json").read_text())["resource"]
    [name, *_] = [n for n in state["google_sql_user"]]
    user, secret = f"google_sql_user.{name}", f"google_secret_manager_secret_version.{name}"
    apply = ("apply", "-input=false", "-auto-approve")
    terraform(*apply, f"-target={user}")  # Interrupted here: there is no secret yet.
    terraform(*apply, f"-target={secret}")
    terraform(*apply, f"-target={secret}")
    first = sent(terraform.root)
    assert first["google_sql_user"] == first["google_secret_manager_secret_version"]
    assert len(first["google_sql_user"]) == 1
    renewed = ("-var", "database_password_version=2")
    terraform(*apply, *renewed, f"-target={user}")
    terraform(*apply, *renewed, f"-target={secret}")
    second = sent(terraform.root)
    assert second["google_sql_user"] == second["google_secret_manager_secret_version"]
    assert len(second["google_sql_user"]) == 2


def findings(root: Path) -> set[tuple[str, str]]:
    """Check and resource of everything that checkov finds in the plan."""
    program = Path(require("terraform-schemas")) / "checkov/bin/checkov"
    done = subprocess.run(
        [program, "--file", root / "plan.json", "--framework", "terraform_plan", "--quiet",
         "--compact", "--skip-download", "--output", "json"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["passed"] > 0
    assert report["summary"]["parsing_errors"] == 0
    failed = report["results"]["failed_checks"]
    return {(f["check_id"], f["resource"].partition("[")[0]) for f in failed}


def exceptions(root: Path) -> set[tuple[str, str]]:
    """Check and resource of everything that the files give a reason for."""
    found = set()
    for path in root.glob("*.tf.json"):
        for kind, bodies in json.loads(path.read_text()).get("resource", {}).items():
            for name, body in bodies.items():
                comments = body.get("//", [])
                for comment in [comments] if isinstance(comments, str) else comments:
                    if comment.startswith("checkov:skip="):
                        check, _, reason = comment.removeprefix("checkov:skip=").partition(":")
                        assert len(reason) > 20
                        found.add((check, f"{kind}.{name}"))
    return found
