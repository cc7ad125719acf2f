"""Repositories that cannot be released: nothing is changed, and the error says what to do.

The remote is a folder, and the project creates only tags.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.release.conftest import CHART, Project, outcomes, project_of
from tests.needs import require

FILE = "project: shop\nrelease: {chart: chart, forge: none}\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_of(tmp_path, FILE)


def refused(project: Project, *, dry: bool = True, **environ: str) -> dict[str, Any]:
    """The error of a release. No tag was made. A dry run fails as well."""
    before = project.git("tag")
    answer = project.release(status=1, **environ)
    assert project.git("tag") == before
    error: dict[str, Any] = answer["error"]
    assert error["hint"]
    if dry:
        output = project.call("release", "--dry-run", **environ)
        assert output.returncode == 1
        assert error["message"] in output.stdout + output.stderr
        assert project.git("tag") == before
    return error


def test_release_without_forge_creates_tag(project: Project) -> None:
    """Without a forge a release is the tag; a second run finds it."""
    answer = project.release()
    assert outcomes(answer) == {"chart": "done", "sbom": "done", "tag": "done"}
    assert "refs/tags/v0.0.1" in project.git("ls-remote", "origin")
    assert outcomes(project.release())["tag"] == "present"


def test_missing_remote(project: Project) -> None:
    project.git("remote", "remove", "origin")
    assert "no remote" in refused(project)["message"]


def test_dry_run_shows_version_despite_problems(project: Project) -> None:
    project.git("remote", "remove", "origin")
    answer = project.release("--dry-run", status=1)
    assert answer["tag"] == "v0.0.1"
    output = outcomes(answer)
    assert output == {
        "check": "failed", "chart": "planned", "sbom": "planned", "tag": "planned",
    }  # fmt: skip


def test_unreachable_remote(project: Project, tmp_path: Path) -> None:
    (tmp_path / "origin.git").rename(tmp_path / "away.git")
    assert "Cannot read the remote `origin`" in refused(project)["message"]


def test_shallow_clone(project: Project, tmp_path: Path) -> None:
    project.commit("More", code="1")
    project.push()
    address = f"file://{tmp_path}/origin.git"
    project.git("clone", "-q", "--depth", "1", address, str(tmp_path / "clone"))
    project.folder = tmp_path / "clone"
    assert "git fetch --unshallow --tags" in refused(project)["hint"]
    project.git("fetch", "-q", "--unshallow", "--tags")
    assert project.release()["tag"] == "v0.0.1"


def test_uncommitted_changes(project: Project) -> None:
    project.write("chart/values.yaml", "greeting: changed\n")
    assert "chart/values.yaml" in refused(project)["message"]
    project.git("checkout", "-q", ".")
    project.write("built.whl", "not tracked, so it does not matter")
    assert project.release()["tag"] == "v0.0.1"


def test_other_branch(project: Project) -> None:
    project.git("checkout", "-q", "-b", "feature/x")
    assert "main or master" in refused(project)["message"]


def test_detached_head(project: Project) -> None:
    """A commit of main at the remote can be released without a branch; another cannot."""
    project.git("checkout", "-q", "--detach")
    assert project.release()["tag"] == "v0.0.1"
    project.commit("Nowhere", code="1")
    assert "The detached HEAD is not in main or master" in refused(project)["message"]


def test_unpushed_commit(project: Project) -> None:
    project.commit("More", code="1")
    assert "not in `main` at `origin`" in refused(project)["message"]


def test_older_commit_of_remote(project: Project) -> None:
    """A job of CI that runs late releases its own commit."""
    head = project.git("rev-parse", "HEAD")
    project.commit("More", code="1")
    project.push()
    project.git("reset", "-q", "--hard", head)
    assert project.release()["tag"] == "v0.0.1"
    project.git("reset", "-q", "--hard", "origin/main")
    assert project.release()["tag"] == "v0.0.2"
    project.git("reset", "-q", "--hard", head)
    assert project.release()["tag"] == "v0.0.1"  # Complete already.


def test_commit_in_later_release_is_skipped(project: Project) -> None:
    head = project.git("rev-parse", "HEAD")
    project.commit("More", code="1")
    project.push()
    assert project.release()["tag"] == "v0.0.1"
    project.git("reset", "-q", "--hard", head)
    answer = project.release()
    assert (answer["skipped"], answer["reason"]) == (True, "This commit is already part of v0.0.1.")


def test_tag_on_another_commit(project: Project) -> None:
    project.git("checkout", "-q", "-b", "aside", "HEAD")
    project.commit("Aside", code="1")
    project.git("tag", "v0.0.1")
    project.git("push", "-q", "origin", "v0.0.1")
    project.git("checkout", "-q", "main")
    project.commit("More", code="2")
    project.push()
    error = refused(project, dry=False)
    assert "v0.0.1 already exists on another commit" in error["message"]


def test_tag_differs_from_remote(project: Project) -> None:
    project.release()
    project.commit("More", code="1")
    project.push()
    project.git("tag", "-f", "v0.0.1")
    assert "git tag -d v0.0.1" in refused(project, dry=False)["hint"]


def test_unpushed_tag(project: Project) -> None:
    project.git("tag", "v0.0.1")
    project.commit("More", code="1")
    project.push()
    assert "git push origin v0.0.1" in refused(project, dry=False)["hint"]


def test_unfetched_tag(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other", str(tmp_path / "origin.git"))
    other.git("pull", "-q", "origin", "main")
    other.commit("Elsewhere", code="1")
    other.push()
    other.release()
    assert project.release()["reason"] == "This commit is already part of v0.0.1."
    project.commit("More", code="2")
    project.git("fetch", "-q", "--no-tags", "origin")
    project.git("merge", "-q", "-X", "ours", "-m", "Join", "origin/main")
    project.push()
    assert project.release()["tag"] == "v0.0.2"
    assert project.git("tag") == ""


def test_invalid_version_tags_are_ignored(project: Project) -> None:
    """They do not count, and those that look like one are output."""
    for tag in ("nightly", "v9", "9.9.9", "v9.0.0-rc.1"):
        project.git("tag", tag)
    output = project.call("release", "--dry-run")
    assert "v0.0.0 -> v0.0.1" in output.stdout
    assert "Ignored tags that are not versions: 9.9.9, v9." in output.stderr


def test_lightweight_tag(project: Project) -> None:
    project.git("tag", "v1.0.0")
    project.git("push", "-q", "origin", "v1.0.0")
    project.commit("More", code="1")
    project.push()
    assert project.release()["tag"] == "v1.0.1"


def test_folder_remote_without_forge(project: Project) -> None:
    project.commit("Want a forge", **{"lapwing-release.yaml": "project: shop\n"})
    project.push()
    assert "`forge: none`" in refused(project)["hint"]


def test_unencrypted_forge_is_refused(project: Project) -> None:
    project.commit("Want a forge", **{"lapwing-release.yaml": "project: shop\n"})
    project.push()
    project.git("remote", "set-url", "--push", "origin", "http://git.example/a/b.git")
    error = refused(project, LAPWING_FORGE_TOKEN="a-secret")
    assert "is not encrypted" in error["message"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("chart/Chart.yaml", "name: [", "not YAML"),
        ("chart/Chart.yaml", "apiVersion: v2\nname: Shop\nversion: 1.0.0\n", "its name"),
        ("chart/Chart.yaml", "apiVersion: v3\nname: shop\nversion: 1.0.0\n", "apiVersion"),
        ("chart/values.yaml", "- a\n", "not a mapping"),
        ("chart/values.schema.json", "{", "not JSON"),
    ],
)
def test_invalid_chart(name: str, text: str, why: str, project: Project) -> None:
    project.write(name, text)
    project.commit("Break the chart")
    project.push()
    assert why in refused(project)["message"]


def test_missing_release_file(project: Project) -> None:
    file = "project: shop\nrelease: {chart: false, forge: none, files: ['dist/*.whl']}\n"
    project.commit("Upload a wheel", **{"lapwing-release.yaml": file})
    project.push()
    assert "dist/*.whl" in refused(project)["message"]
    project.write("dist/shop-1.whl", "a wheel")
    assert outcomes(project.release())["files"] == "done"


def test_stated_policy(project: Project) -> None:
    file = "project: shop\nrelease: {policy: stated, version_file: VERSION, forge: none}\n"
    project.commit("State it", **{"lapwing-release.yaml": file})
    project.push()
    assert "VERSION is not in the commit" in refused(project, dry=False)["message"]
    project.commit("State it", VERSION="0.4.0\n")
    project.push()
    assert project.release()["tag"] == "v0.4.0"
    project.commit("More", code="1")
    project.push()
    assert project.release()["skipped"]


def test_empty_and_missing_repository(tmp_path: Path) -> None:
    empty = Project(tmp_path / "empty")
    empty.write("lapwing-release.yaml", "project: empty\n")
    assert "no commit yet" in empty.release(status=1)["error"]["message"]
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "lapwing-release.yaml").write_text("project: bare\n")
    empty.folder = bare
    empty.environ["GIT_CEILING_DIRECTORIES"] = str(tmp_path)
    assert "not in a git repository" in empty.release(status=1)["error"]["message"]


def test_missing_release_file_and_stack(tmp_path: Path) -> None:
    done = Project(tmp_path / "none").call("release")
    assert done.returncode == 2
    assert "lapwing-release.yaml" in done.stderr


def test_invalid_release_configuration(project: Project) -> None:
    text = "project: shop\nrelease:\n  policy: stated\n  chrt: x\nmirror: [redis]\n"
    project.write("lapwing-release.yaml", text)
    done = project.call("release")
    assert done.returncode == 2
    assert "lapwing-release.yaml:4:3" in done.stderr
    project.write("lapwing-release.yaml", text.replace("  chrt: x\n", ""))
    done = project.call("release")
    assert "lapwing-release.yaml:3:11" in done.stderr
    assert "'redis' has no version" in done.stderr
    project.write("lapwing-release.yaml", "projct: shop\n")
    assert "Did you mean `project`?" in project.call("release").stderr


def test_release_file_may_have_extension_keys_and_merge_lists(project: Project) -> None:
    text = (
        "x-a: &a {policy: conventional-commits}\nx-b: &b {policy: stated, branches: [none]}\n"
        "project: shop\nrelease: {<<: [*a, *b]}\n"
    )
    project.write("lapwing-release.yaml", text)
    done = project.call("release", "--dry-run", "--output", "json")
    assert "Branch `main` is not a release branch (none)." in done.stdout


def test_chart_is_reproducible(project: Project, tmp_path: Path) -> None:
    """Byte by byte, and without what .helmignore names."""
    from lapwing.release.chart import package_folder
    from lapwing.release.git import Checkout

    project.commit("Ignore", **{"chart/.helmignore": "# no\nnotes/\n", "chart/notes/a": "x"})
    head = project.git("rev-parse", "HEAD")
    checkout = Checkout(project.folder, project.environ)
    first, second = (
        package_folder(checkout, head, "chart", "1.2.3", {"PATH": path})
        for path in ("/nowhere", project.environ["PATH"])
    )
    assert first.content == second.content
    target = tmp_path / first.name
    target.write_bytes(first.content)
    listed = subprocess.run(["tar", "-tzf", str(target)], capture_output=True, check=True).stdout
    names = listed.decode().split()
    assert names[0] == "shop/Chart.yaml"
    assert sorted(names) == sorted(
        [*(f"shop/{n.removeprefix('chart/')}" for n in CHART), "shop/.helmignore"]
    )


def test_own_release(tmp_path: Path) -> None:
    """Its own release file leads to the version that it states, and to the files of the build."""
    import lapwing

    root = Path(__file__).parents[3]
    names = (
        "lapwing-release.yaml", "src/lapwing/__init__.py", "requirements.txt",
        "src/lapwing/server/requirements.txt", "pyproject.toml", "hatch_build.py",
        "README.md", "LICENSE",
    )  # fmt: skip
    bare = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    own = Project(tmp_path / "own", str(bare))
    for name in names:
        own.write(name, (root / name).read_text())
    own.write(
        "lapwing-release.yaml",
        (root / "lapwing-release.yaml").read_text() + "  forge: none\n",
    )
    own.commit("All of it")
    own.push()
    build = [sys.executable, "-m", "hatchling", "build", "-d", "dist"]
    subprocess.run(build, cwd=own.folder, check=True, capture_output=True)
    answer = own.release("--dry-run")
    assert answer["tag"] == f"v{lapwing.__version__}"
    assert (outcomes(answer)["chart"], outcomes(answer)["sbom"]) == ("skipped", "planned")
    [note] = [step["note"] for step in answer["steps"] if step["name"] == "files"]
    stem = f"lapwing_deploy-{lapwing.__version__}"
    files = [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz", "requirements.txt"]
    assert note.split(", ") == [name + end for name in files for end in ("", ".sha256")]


@pytest.mark.parametrize(
    ("variables", "page", "raw"),
    [
        ({}, "/blob/abc/docs/", "/raw/abc/docs/"),
        ({"GITEA_ACTIONS": "true"}, "/src/commit/abc/docs/", "/raw/commit/abc/docs/"),
    ],
    ids=["github", "gitea"],
)
def test_own_wheel_links_to_the_released_commit(
    variables: dict[str, str], page: str, raw: str
) -> None:
    """The build step of the release workflow sets the address; no other build claims one."""
    root = Path(__file__).parents[3]
    workflow = yaml.safe_load((root / ".github/workflows/release.yaml").read_text())
    [build] = [s for s in workflow["jobs"]["release"]["steps"] if "hatchling" in s.get("run", "")]
    url = "https://git.example/acme/lapwing"
    assert build["env"] == {"PROJECT_URL": "${{ github.server_url }}/${{ github.repository }}"}

    def metadata(**environ: str) -> Any:
        command = [sys.executable, "-m", "hatchling", "metadata"]
        plain = {"PATH": os.environ["PATH"]}
        shown = subprocess.run(
            command, cwd=root, env={**plain, **environ}, capture_output=True, check=True
        )
        return json.loads(shown.stdout)

    job = {"GITHUB_ACTIONS": "true", "GITHUB_SHA": "abc", **variables}
    # As from the expression of the workflow: Gitea's `github.server_url` ends with a slash.
    given = url.replace("example/", "example//") if "GITEA_ACTIONS" in variables else url
    released = metadata(PROJECT_URL=given, **job)
    assert (released["urls"]["Source"], released["urls"]["Issues"]) == (url, f"{url}/issues")
    text = released["readme"]["text"]
    assert f"]({url}{page}getting-started.md)" in text
    assert f"]({url}{raw}pictures/deploy.svg)" in text
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)#]+)", text))
    assert "urls" not in metadata(**job)


def test_helm_lints_and_accepts_chart(project: Project, tmp_path: Path) -> None:
    """Where there is a helm, it lints the chart; and it takes what was packed."""
    helm = require("helm")
    project.environ["PATH"] = f"{Path(helm).parent}:{project.environ['PATH']}"
    from lapwing.release.chart import package_folder
    from lapwing.release.git import Checkout

    head = project.git("rev-parse", "HEAD")
    checkout = Checkout(project.folder, project.environ)
    made = package_folder(checkout, head, "chart", "1.2.3", project.environ)
    package = tmp_path / made.name
    package.write_bytes(made.content)
    shown = subprocess.run(
        [helm, "template", "x", str(package)], capture_output=True, text=True, check=True
    ).stdout
    assert 'greeting: "hello"' in shown
    project.write("chart/templates/config.yaml", "{{ .Values.greeting | unknown }}\n")
    project.commit("Break a template")
    project.push()
    assert "helm lint" in refused(project)["message"]


def test_policy_option(project: Project) -> None:
    project.commit("feat: a new thing", code="1")
    project.push()
    answer = project.release("--dry-run", "--policy", "conventional-commits")
    assert (answer["bump"], answer["tag"]) == ("patch", "v0.0.1")
    done = project.call("release", "--dry-run", "--policy", "stated")
    assert done.returncode == 2
    assert "version_file" in done.stderr


def test_chart_of_stack(project: Project) -> None:
    """A stack whose services name their images is released with the chart that Lapwing makes."""
    stack = (
        "stack: shop\nservices:\n  web: {image: 'registry.example/web:1.0', command: serve, "
        "route: /}\nenvironments:\n  production: {target: kubernetes, domain: shop.example}\n"
        "release: {forge: none}\n"
    )
    project.git("rm", "-q", "-r", "lapwing-release.yaml", "chart")
    project.commit("A stack", **{"lapwing.yaml": stack})
    project.push()
    answer = project.release()
    assert outcomes(answer)["chart"] == "done", answer
    assert answer["steps"][0]["note"] == "shop-0.0.1.tgz, shop-0.0.1.tgz.sha256"


SETTINGS = {
    "color.ui": "always",
    "commit.gpgSign": "true",
    "core.abbrev": "4",
    "core.quotePath": "true",
    "diff.mnemonicPrefix": "true",
    "diff.noprefix": "true",
    "diff.renames": "copies",
    "fetch.prune": "true",
    "format.pretty": "fuller",
    "i18n.logOutputEncoding": "ISO-8859-1",
    "log.date": "relative",
    "log.decorate": "full",
    "log.follow": "true",
    "log.mailmap": "true",
    "log.showRoot": "false",
    "log.showSignature": "true",
    "push.default": "nothing",
    "push.followTags": "true",
    "push.gpgSign": "true",
    "status.showUntrackedFiles": "all",
    "tag.forceSignAnnotated": "true",
    "tag.gpgSign": "true",
    "tag.sort": "-creatordate",
    "user.useConfigOnly": "true",
    "versionsort.suffix": "-rc",
}


def test_git_settings_change_nothing(project: Project) -> None:
    """The user's settings for output, signatures and pushes do not reach a release."""
    project.merge("feature/é", more="1")
    project.push()
    plain = project.release("--dry-run")
    for name, value in SETTINGS.items():
        project.git("config", name, value)
    assert project.release("--dry-run") == plain
    answer = project.release()
    assert (answer["tag"], answer["reason"]) == (plain["tag"], plain["reason"])
    tags = project.git("ls-remote", "--tags", "origin").split()[1::2]
    assert tags == ["refs/tags/v1.0.0", "refs/tags/v1.0.0^{}"]


def test_failures_of_several_projects_are_listed_at_the_end(project: Project) -> None:
    file = (
        "project: shop\nrelease:\n  forge: none\n  policy: stated\n  projects:\n"
        "    api: {path: api, version_file: api/version}\n"
        "    web: {path: web, version_file: web/version}\n"
        "    lib: {path: lib, version_file: lib/version, files: [lib/missing]}\n"
    )
    versions = {"api/version": "later", "web/version": "1.0.0", "lib/version": "1.0.0"}
    project.commit("Three projects", **{"lapwing-release.yaml": file, **versions})
    project.push()
    for arguments in (["release", "--dry-run"], ["release"]):
        done = project.call(*arguments)
        assert done.returncode == 1
        assert "web-v1.0.0" in done.stdout
        assert done.stderr.endswith(
            "error: 2 of 3 projects cannot be released: api, lib.\n"
            "    api: No version found in api/version.\n"
            '      The file needs a line such as `version = "1.2.3"`.\n'
            f"    lib: No file matches 'lib/missing' in {project.folder}.\n"
            "      Build the files before `lapwing release`.\n"
            "  Correct the causes and run `lapwing release` again: completed steps are not "
            "repeated.\n"
        )
    assert "refs/tags/web-v1.0.0" in project.git("ls-remote", "origin")
    answer = project.release(status=1)
    assert [p["name"] for p in answer["projects"]] == ["web", "lib"]
    assert answer["error"]["message"] == "2 of 3 projects cannot be released: api, lib."
