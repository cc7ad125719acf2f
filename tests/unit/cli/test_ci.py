"""What `lapwing ci init` writes for the stacks of tests/golden/ci, held to actionlint.

LAPWING_GOLDEN_WRITE=1 writes the expectations again. The version of Lapwing is left out of them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lapwing import DISTRIBUTION, __version__
from lapwing.cli.ci import command
from lapwing.cli.context import Context
from lapwing.cli.output import Printer
from lapwing.commands.ci_source import remote_of, source_of
from lapwing.design.pipeline import FILES
from lapwing.design.workflow import MARK, ignored_paths
from lapwing.errors import UnmanagedFileError, UsageError
from lapwing.settings import Settings
from tests.needs import require

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests/golden/ci"
NAMES = sorted(p.name for p in CASES.iterdir())


def init(folder: Path, *arguments: str) -> None:
    """Run the command; what it raises comes through."""
    context = Context(Settings(home=folder / "home"), folder, Printer(color=False))
    if "--install-from" not in arguments:
        arguments = (*arguments, "--install-from", f"{DISTRIBUTION}=={__version__}")
    CliRunner().invoke(command, ["init", *arguments], obj=context, catch_exceptions=False)


def written(case: str, top: Path) -> Path:
    """The workflow of a case, written in a repository at `top`; its stack may lie below."""
    folder = top / "deploy" if case.endswith("-below") else top
    folder.mkdir(exist_ok=True)
    (top / ".git").mkdir()
    for file in CASES.joinpath(case).glob("lapwing*.yaml"):
        shutil.copy(file, folder)
    forge = "gitea" if case.startswith("gitea") else "github"
    init(folder, "--forge", forge)
    return top / FILES[forge]  # type: ignore[index]


@pytest.mark.parametrize("case", NAMES)
def test_workflow_matches_golden_file(case: str, tmp_path: Path) -> None:
    text = written(case, tmp_path).read_text().replace(f"=={__version__}", "==VERSION")
    text = re.sub(f"^{re.escape(MARK)}\\w+", MARK + "DIGEST", text)
    expected = CASES / case / "workflow.yaml"
    if os.environ.get("LAPWING_GOLDEN_WRITE"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize(
    ("remote", "release", "branches"),
    [
        (None, "", '["trunk"]'),
        ("develop", "", '["develop"]'),
        ("main", "", '["main", "master"]'),
        ("develop", "release: {branches: [stable]}\n", '["stable"]'),
    ],
)
def test_workflow_is_for_the_default_branch(
    remote: str | None,
    release: str,
    branches: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q", "-b", "trunk"], check=True)
    if remote is not None:
        head = f"refs/remotes/origin/{remote}"
        subprocess.run([*git, "symbolic-ref", "refs/remotes/origin/HEAD", head], check=True)
    text = "stack: shop\nservices: {api: {build: ., command: run}}\n"
    (tmp_path / "lapwing.yaml").write_text(text + release)
    init(tmp_path, "--forge", "github")
    assert f"branches: {branches}" in (tmp_path / FILES["github"]).read_text()
    is_told = "add `release: {branches: [" in capsys.readouterr().err
    assert is_told is (not release and remote != "main")


@pytest.mark.parametrize("case", NAMES)
def test_workflow_passes_actionlint(case: str, tmp_path: Path) -> None:
    program = require("actionlint")
    lint(program, written(case, tmp_path))


def test_own_workflows_pass_actionlint() -> None:
    folder = ROOT / ".github/workflows"
    for name, called in (("ci.yaml", ".ci/run"), ("release.yaml", "lapwing release")):
        lint(require("actionlint"), folder / name)
        assert called in (folder / name).read_text()


def lint(program: str, workflow: Path) -> None:
    config = ["-config-file", str(ROOT / ".github/actionlint.yaml")]
    done = subprocess.run(
        [program, "-no-color", *config, str(workflow)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", NAMES)
def test_workflow_is_hardened(case: str, tmp_path: Path) -> None:
    """Pinned actions, few rights, no expression in a script, no own machine for pull requests."""
    text = written(case, tmp_path).read_text()
    document = yaml.safe_load(text)
    assert document["permissions"] == {"contents": "read"}
    for name, job in document["jobs"].items():
        hosted = job["runs-on"] == "ubuntu-latest"
        assert hosted or job["if"].split(" && ")[0] == "github.event_name == 'push'", name
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            if "uses" in step:
                google = "google-github-actions/auth|" if name in ("ship", "release") else ""
                assert re.fullmatch(rf"({google}actions/[\w-]+)@[0-9a-f]{{40}}", step["uses"])
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False
            if step.get("uses", "").startswith("actions/setup-python"):
                assert ("cache" in step["with"]) == (name == "check"), "jobs with tokens read none"


def test_edited_workflow_is_kept_and_diff_shown(tmp_path: Path) -> None:
    path = written("github-none", tmp_path)
    ours = path.read_text()
    path.write_text(ours.replace("timeout-minutes: 30", "timeout-minutes: 45"))
    with pytest.raises(UnmanagedFileError) as caught:
        init(tmp_path, "--forge", "github")
    assert "-    timeout-minutes: 45" in (caught.value.detail or "")
    assert "timeout-minutes: 45" in path.read_text()
    init(tmp_path, "--forge", "github", "--force")
    assert path.read_text() == ours


def test_unedited_workflow_is_updated(tmp_path: Path) -> None:
    """After a change of the stack file, or of Lapwing."""
    path = written("github-none", tmp_path)
    shutil.copy(CASES / "github-two/lapwing.yaml", tmp_path)
    init(tmp_path, "--forge", "github")
    assert "--environment staging" in path.read_text()


@pytest.mark.parametrize(
    "source",
    [
        "lapwing-deploy==1.2.3",
        "https://example.com/lapwing_deploy-1.2.3-py3-none-any.whl#sha256=" + "a" * 64,
        "git+https://example.com/lapwing.git@" + "b" * 40,
        "git+ssh://git@example.com/lapwing.git@" + "b" * 40,
    ],
)
def test_workflow_installs_pinned_source(source: str, tmp_path: Path) -> None:
    path = written("github-two", tmp_path)
    init(tmp_path, "--forge", "github", "--install-from", source)
    assert path.read_text().count(f"install --quiet {shlex.quote(source)}\n") == 3


@pytest.mark.parametrize(
    ("source", "installed"),
    [
        (f"{DISTRIBUTION}==1.2.3", f"{DISTRIBUTION}[keyless]==1.2.3"),
        (
            f"git+https://git.example/lapwing.git@{'a' * 40}",
            f"{DISTRIBUTION}[keyless] @ git+https://git.example/lapwing.git@{'a' * 40}",
        ),
    ],
)
def test_keyless_workflow_installs_the_extra(source: str, installed: str, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    shutil.copy(CASES / "github-keyless/lapwing.yaml", tmp_path)
    init(tmp_path, "--forge", "github", "--install-from", source)
    assert f"install --quiet '{installed}'\n" in (tmp_path / FILES["github"]).read_text()


def test_keyless_is_refused_on_gitea(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    shutil.copy(CASES / "github-keyless/lapwing.yaml", tmp_path)
    with pytest.raises(UsageError) as caught:
        init(tmp_path, "--forge", "gitea")
    assert "no identity token" in caught.value.message
    assert not (tmp_path / FILES["gitea"]).exists()


def test_workflow_installs_from_requirements_with_hashes(tmp_path: Path) -> None:
    path = written("github-none", tmp_path)
    (tmp_path / "ci.txt").touch()
    init(tmp_path, "--forge", "github", "--install-from", "ci.txt")
    assert '--require-hashes -r "$GITHUB_WORKSPACE"/ci.txt\n' in path.read_text()


@pytest.mark.parametrize(
    "source",
    [
        "lapwing",
        "lapwing==0.1.0",
        "lapwing-deploy",
        "https://a/b.whl",
        "git+https://a/b@main",
        "git+https://me:secret@a/b.git@" + "b" * 40,
        "https://me:secret@a/b.whl#sha256=" + "a" * 64,
        "https://a/${{ secrets.X }}.whl#sha256=" + "a" * 64,
    ],
)
def test_source_that_can_change_is_refused(source: str, tmp_path: Path) -> None:
    written("github-none", tmp_path)
    with pytest.raises(UsageError, match="neither a pinned source"):
        init(tmp_path, "--forge", "github", "--install-from", source)


@pytest.mark.parametrize(
    ("patterns", "ignored"),
    [
        (["*.md"], ("**/*.md",)),
        (["docs/"], ("**/docs/**",)),
        (["/docs"], ("docs", "docs/**")),
        (["a/b/*.txt"], ("a/b/*.txt",)),
        (["*.md", "!README.md"], ()),
        (["*.m[dk]", "LICENSE.txt"], ("**/LICENSE.txt",)),
    ],
)
def test_documentation_patterns_become_ignored_paths(
    patterns: list[str], ignored: tuple[str, ...]
) -> None:
    assert ignored_paths(patterns) == ignored


def test_clone_counts_as_its_remote_if_unchanged(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "First")
    refused(tmp_path, "no git clone with a remote")
    git("remote", "add", "origin", "https://example.com/lapwing.git")
    refused(tmp_path, "whose commit is not pushed")
    head = git("rev-parse", "HEAD")
    git("update-ref", "refs/remotes/origin/main", head)
    assert remote_of(tmp_path) == f"git+https://example.com/lapwing.git@{head}"
    editable = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    assert source_of(json.dumps(editable)) == remote_of(tmp_path)
    git("remote", "set-url", "origin", "git@example.com:team/lapwing.git")
    assert remote_of(tmp_path) == f"git+ssh://git@example.com/team/lapwing.git@{head}"
    for address in (
        "https://me:tiger-9@example.com/lapwing.git",
        "https://tiger-9@example.com/lapwing.git?private_token=tiger-9",
        "https://me:tiger-9@9@example.com/lapwing.git#tiger-9",
    ):
        git("remote", "set-url", "origin", address)
        assert remote_of(tmp_path) == f"git+https://example.com/lapwing.git@{head}"
    git("remote", "set-url", "origin", "ssh://git:tiger-9@example.com:2222/lapwing.git?a=tiger-9")
    assert remote_of(tmp_path) == f"git+ssh://git@example.com:2222/lapwing.git@{head}"
    git("remote", "set-url", "origin", "http://me:tiger-9@example.com/lapwing.git?a=tiger-9")
    assert "tiger-9" not in refused(tmp_path, "http://example.com/lapwing.git: neither https nor")
    git("remote", "set-url", "origin", "https://example.com/lapwing.git")
    (tmp_path / "file").write_text("2")
    refused(tmp_path, "has uncommitted changes")


def refused(clone: Path, why: str) -> str:
    with pytest.raises(UsageError, match=why) as caught:
        remote_of(clone)
    assert "--install-from" in str(caught.value.hint)
    return str(caught.value)


@pytest.mark.parametrize(
    "stated",
    [
        {"url": "file:///tmp/lapwing_deploy-1-py3-none-any.whl", "archive_info": {}},
        {"url": "http://host/lapwing_deploy-1-py3-none-any.whl", "archive_info": {}},
    ],
)
def test_source_that_ci_cannot_install_is_refused(stated: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="has nothing to install it from"):
        source_of(json.dumps(stated))


def test_installation_from_an_index_is_its_version() -> None:
    assert source_of(None) == f"{DISTRIBUTION}=={__version__}"


def test_unknown_environment_is_refused(tmp_path: Path) -> None:
    written("github-two", tmp_path)
    with pytest.raises(UsageError, match="no environment `prod`"):
        init(tmp_path, "--forge", "github", "-e", "prod")


def test_cluster_that_lapwing_applies_is_shipped_by_a_runner_of_the_team(tmp_path: Path) -> None:
    """The desired state and the secrets are in its LAPWING_HOME."""
    path = written("github-two", tmp_path)
    init(tmp_path, "--forge", "github", "-e", "production")
    lint(require("actionlint"), path)
    ship = yaml.safe_load(path.read_text())["jobs"]["ship"]
    assert ship["runs-on"] == ["self-hosted", "lapwing"]
    assert ship["if"] == "github.event_name == 'push'"
    assert ship["steps"][-1]["run"].strip().endswith('lapwing" deploy --environment production')


def test_argo_cd_without_repository_is_refused(tmp_path: Path) -> None:
    written("github-argo", tmp_path)
    file = tmp_path / "lapwing.yaml"
    file.write_text(file.read_text().replace("    repository:", "x-repository:"))
    init(tmp_path, "--forge", "github")
    assert "  ship:" not in (tmp_path / FILES["github"]).read_text()
    with pytest.raises(UsageError, match="`repository` is not set for `production`"):
        init(tmp_path, "--forge", "github", "-e", "production")


def test_release_to_artifact_registry_of_another_project_needs_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the registry of `lapwing infra` accepts the identity of a job."""
    (tmp_path / ".git").mkdir()
    registry = "europe-west1-docker.pkg.dev/other/images"
    text = (CASES / "github-artifact-registry/lapwing.yaml").read_text()
    text = text.replace("europe-west1-docker.pkg.dev/shop-shared/images", registry)
    (tmp_path / "lapwing.yaml").write_text(text)
    init(tmp_path, "--forge", "github")
    key = f"a key (JSON) of a service account that may push to {registry}."
    printed = " ".join(capsys.readouterr().err.split())
    assert f"Create the secret LAPWING_REGISTRY_TOKEN: {key}" in printed
    assert "_USER" not in (tmp_path / FILES["github"]).read_text()


def test_identity_of_google_is_for_every_release_branch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job `release` runs on each of them."""
    (tmp_path / ".git").mkdir()
    text = (CASES / "github-artifact-registry/lapwing.yaml").read_text()
    text += "release: {branches: [main, {name: next, prerelease: rc}]}\n"
    (tmp_path / "lapwing.yaml").write_text(text)
    init(tmp_path, "--forge", "github")
    subjects = [f"repo:OWNER/REPOSITORY:ref:refs/heads/{name}" for name in ("main", "next")]
    printed = " ".join(capsys.readouterr().err.split())
    assert f"Apply it with ci_subjects = {json.dumps(subjects)}: only jobs of" in printed
