"""The workflow for a forge's CI, which `lapwing ci init` writes.

It calls Lapwing's own verbs and little else, so that what CI does can be run by hand. Its rules:
actions are pinned to commits; a token has the least permissions and is passed only through the
environment; no untrusted text (a branch name, a title) is put into a script; no job for pull
requests runs on the team's own machine; nothing runs for a change of documentation.

The first line has a digest of the rest, so that an unedited file can be updated.

Sources: GitHub's workflow syntax and its guide to security hardening; "Compared to GitHub Actions"
in Gitea's documentation, for what its runners ignore.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

Forge = Literal["gitea", "github"]

CHECKOUT = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2"
SETUP_PYTHON = "actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065 # v5.6.0"
PYTHON = "3.12"
MARK = "# Made by lapwing ci init. Digest of the rest: "
FILES: dict[Forge, str] = {
    "github": ".github/workflows/lapwing.yaml",
    "gitea": ".gitea/workflows/lapwing.yaml",
}
DOCUMENTATION = ("docs/**", "**.md", ".gitignore")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a workflow depends on.

    `environment` is the one on a machine that the main branch is shipped to, if any; `version` is
    Lapwing's; `folder` is the stack file's in the repository.
    """

    forge: Forge
    version: str
    environment: str | None
    folder: str = "."
    documentation: tuple[str, ...] = DOCUMENTATION


def workflow(pipeline: Pipeline) -> str:
    """Write the whole file, with its first line."""
    jobs = [_check(pipeline)]
    if pipeline.environment is not None:
        jobs.append(_ship(pipeline, pipeline.environment))
    jobs.append(_release(pipeline))
    body = _head(pipeline) + "\n".join(jobs)
    return f"{MARK}{_digest(body)}\n{body}"


def unchanged(text: str) -> bool:
    """Return whether a file is unedited, from this version of Lapwing or an earlier one."""
    first, _, body = text.partition("\n")
    return first == MARK + _digest(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _head(pipeline: Pipeline) -> str:
    ignored = "".join(f"      - {json.dumps(path)}\n" for path in pipeline.documentation)
    return f"""\
# You can edit this file: `lapwing ci init` then replaces it only with --force.
#
# Nothing runs for a pull request that changes only documentation, so a required status check would
# stay pending: make the check job required only if pull requests always change code, too.
{_FORGE_NOTES[pipeline.forge]}
name: lapwing

on:
  push:
    branches: ["**"]
    paths-ignore:
{ignored}\
  pull_request:
    paths-ignore:
{ignored}
permissions:
  contents: read

concurrency:
  group: lapwing-${{{{ github.ref }}}}
  cancel-in-progress: ${{{{ github.event_name == 'pull_request' }}}}

jobs:
"""


_FORGE_NOTES: dict[Forge, str] = {
    "github": "# In the repository's settings, allow only actions created by GitHub.",
    "gitea": "# Gitea before 1.26 ignores `permissions` and `concurrency`: limit the token in the "
    "repository's\n# settings. It downloads actions from github.com unless DEFAULT_ACTIONS_URL is "
    "set.",
}


def _check(pipeline: Pipeline) -> str:
    return f"""\
  check:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
{_install(pipeline)}\
      - name: Check the stack file
        run: lapwing check
{_in_folder(pipeline)}\
      - name: Build every service and run its tests
        run: lapwing ship --check --scan off
{_in_folder(pipeline)}"""


def _ship(pipeline: Pipeline, environment: str) -> str:
    label = "lapwing" if pipeline.forge == "gitea" else "[self-hosted, lapwing]"
    return f"""\
  # Runs on a self-hosted runner with the label `lapwing`, as the user of the agent of {environment}
  # (both use one LAPWING_HOME), and never for pull requests. Requires trivy or grype.
  ship:
    needs: check
    if: {_ON_MAIN}
    runs-on: {label}
    timeout-minutes: 60
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
      - name: Build, test, scan, and commit to the desired state
        run: |
          python3 -m venv "$RUNNER_TEMP/lapwing"
          "$RUNNER_TEMP/lapwing/bin/pip" install --quiet "lapwing==$LAPWING_VERSION"
          "$RUNNER_TEMP/lapwing/bin/lapwing" ship --environment {environment}
        env:
          LAPWING_VERSION: {json.dumps(pipeline.version)}
          LAPWING_ACTOR: ${{{{ github.actor }}}}
{_in_folder(pipeline)}"""


def _release(pipeline: Pipeline) -> str:
    needs = "ship" if pipeline.environment is not None else "check"
    token = "secrets.GITEA_TOKEN" if pipeline.forge == "gitea" else "github.token"
    return f"""\
  release:
    needs: {needs}
    if: {_ON_MAIN}
    runs-on: ubuntu-latest
    timeout-minutes: 30
    permissions:
      contents: write
      packages: write
    steps:
      - uses: {CHECKOUT}
        with:
          fetch-depth: 0
          persist-credentials: false
{_install(pipeline)}\
      - name: Tag and publish the next version
        run: lapwing release
        env:
          LAPWING_FORGE_TOKEN: ${{{{ {token} }}}}
{_in_folder(pipeline)}"""


_ON_MAIN = (
    "github.event_name == 'push' && "
    "(github.ref == 'refs/heads/main' || github.ref == 'refs/heads/master')"
)


def _install(pipeline: Pipeline) -> str:
    return f"""\
      - uses: {SETUP_PYTHON}
        with:
          python-version: "{PYTHON}"
      - run: python -m pip install --quiet "lapwing==$LAPWING_VERSION"
        env:
          LAPWING_VERSION: {json.dumps(pipeline.version)}
"""


def _in_folder(pipeline: Pipeline) -> str:
    if pipeline.folder == ".":
        return ""
    return f"        working-directory: {json.dumps(pipeline.folder)}\n"
