"""The workflow for a forge's CI, which `lapwing ci init` writes.

It calls verbs of Lapwing and little else, so that what CI does can be run by hand. Its rules:
actions are pinned to commits and programs to digests; a token has the least permissions and is
passed only through the environment; no untrusted text (a branch name, a title) is put into a
script; no job for pull requests runs on a machine of the team; nothing runs for a change of
documentation.

The first line has a digest of the rest, so that an unedited file can be updated.

Sources: GitHub's workflow syntax and its guide to security hardening; "Compared to GitHub Actions"
in Gitea's documentation, for what its runners ignore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from lapwing.design import branch_jobs, programs, ship_job
from lapwing.design.pipeline import (
    Pipeline,
    check_settings,
    checkout,
    forge_token,
    google_login,
    in_folder,
    install,
    job_comment,
    variables,
)

MARK = "# Made by lapwing ci init. Digest of the rest: "


def workflow(pipeline: Pipeline) -> str:
    """Write the whole file, with its first line."""
    jobs = []
    if pipeline.stack:
        jobs.append(_check(pipeline))
    if pipeline.ship is not None:
        jobs.append(ship_job.render(pipeline, pipeline.ship))
    if pipeline.reviewed is not None:
        jobs.append(branch_jobs.deploy(pipeline, pipeline.reviewed))
        jobs.append(branch_jobs.remove(pipeline, pipeline.reviewed))
    jobs.append(_release(pipeline))
    body = _head(pipeline) + "\n".join(jobs)
    return f"{MARK}{_digest(body)}\n{body}"


def unchanged(text: str) -> bool:
    """Return whether a file is unedited, from this version of Lapwing or an earlier one."""
    first, _, body = text.partition("\n")
    return first == MARK + _digest(body)


def ignored_paths(patterns: Sequence[str]) -> tuple[str, ...]:
    """Translate documentation patterns, as in .gitignore, to those of `paths-ignore`.

    Patterns with an exception (`!`) or a character class are left out: the workflow then runs, and
    `lapwing release` finds nothing to release. Source: GitHub's "Filter pattern cheat sheet".
    """
    found: list[str] = []
    if any(pattern.startswith("!") for pattern in patterns):
        return ()
    for pattern in patterns:
        path, anchored = pattern.strip("/"), "/" in pattern.rstrip("/")
        if set(path) & set("?[]\\+"):
            continue
        where = path if anchored else f"**/{path}"
        if not pattern.endswith("/"):
            found.append(where)
        if not set(path.rpartition("/")[2]) & set("*."):
            found.append(f"{where}/**")
    return tuple(found)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _head(pipeline: Pipeline) -> str:
    ignored = ""
    if pipeline.documentation:
        patterns = "".join(f"      - {json.dumps(path)}\n" for path in pipeline.documentation)
        ignored = f"    paths-ignore:\n{patterns}"
    pull_requests = f"  pull_request:\n{ignored}" if pipeline.stack else ""
    group = "github.ref"
    if pipeline.reviewed is not None:
        types = "    types: [opened, synchronize, reopened, closed]\n"
        pull_requests = f"  pull_request:\n{types}{ignored}  delete:\n{branch_jobs.SCHEDULE}"
        # In other events the ref is the main branch: a run would cancel a push that waits.
        pushed = f"(github.event_name == 'push' && {group})"
        group = f"github.event.pull_request.number || {pushed} || github.event_name"
    return f"""\
# You can edit this file: `lapwing ci init` then replaces it only with --force.
#
# Nothing runs for a pull request that changes only documentation, so a required status check would
# stay pending: make the check job required only if pull requests always change code, too.
{_forge_note(pipeline)}
name: lapwing

on:
  push:
    branches: {json.dumps(pipeline.branches)}
{ignored}{pull_requests}
permissions:
  contents: read

concurrency:
  group: lapwing-${{{{ {group} }}}}
  cancel-in-progress: ${{{{ github.event_name == 'pull_request' }}}}

jobs:
"""


def _forge_note(pipeline: Pipeline) -> str:
    if pipeline.forge == "gitea":
        return """\
# Gitea before 1.26 ignores `permissions` and `concurrency`: limit the token in the repository's
# settings. It downloads actions from github.com unless DEFAULT_ACTIONS_URL is set."""
    logins = (pipeline.login, pipeline.ship and pipeline.ship.login)
    is_google = any(login and login.account for login in logins)
    other = " and google-github-actions/auth@*" if is_google else ""
    return f"# In the repository's settings, allow only actions created by GitHub{other}."


def _check(pipeline: Pipeline) -> str:
    build = ""
    if pipeline.built is not None:
        build = f"""\
      - name: Build every service and run its tests
        run: lapwing ship --check --scan off --environment {pipeline.built}
{in_folder(pipeline)}"""
    condition = ""
    if pipeline.reviewed is not None:
        opened = f"{branch_jobs.PULL_REQUEST} != 'closed'"
        condition = f"    if: github.event_name == 'push' || ({opened})\n"
    return f"""\
  check:
{condition}\
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
{checkout()}\
{install(pipeline, cached=True)}\
      - name: Check the stack file
        run: lapwing check
{in_folder(pipeline)}\
{build}"""


def _release(pipeline: Pipeline) -> str:
    needs = ""
    if pipeline.stack:
        last = "ship" if pipeline.ship is not None else "check"
        needs = f"    needs: {last}\n    if: github.event_name == 'push'\n"
    if pipeline.ship is not None and pipeline.others:
        # The job `ship` is skipped on some branches.
        condition = "!failure() && !cancelled() && github.event_name == 'push'"
        needs = f"    needs: [check, ship]\n    if: ${{{{ {condition} }}}}\n"
    # `release` checks its write access before it tags, and some registries need no secret, so the
    # workflow checks only that the variables exist.
    checked = [setting for setting in pipeline.settings if not setting.is_secret]
    has_identity = pipeline.is_keyless or pipeline.login is not None
    identity = "      id-token: write\n" if has_identity else ""
    comment = "Tags and publishes the next version."
    return f"""\
{job_comment(comment, pipeline.settings) if pipeline.settings else ""}\
  release:
{needs}\
    runs-on: ubuntu-latest
    timeout-minutes: 30
    permissions:
      contents: write
      packages: write
{identity}\
    steps:
{check_settings(checked, "release")}\
{checkout("fetch-depth: 0")}\
{install(pipeline)}\
{programs.install_step(programs.HELM) if pipeline.has_chart else ""}\
{google_login(pipeline.login)}\
      - name: Tag and publish the next version
        run: lapwing release
        env:
          LAPWING_FORGE_TOKEN: ${{{{ {forge_token(pipeline)} }}}}
{variables(pipeline.settings, pipeline.login)}\
{in_folder(pipeline)}"""
