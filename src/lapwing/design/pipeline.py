"""The workflow for a forge's CI, which `lapwing ci init` writes.

It calls Lapwing's own verbs and little else, so that what CI does can be run by hand. Its rules:
actions are pinned to commits and programs to digests; a token has the least permissions and is
passed only through the environment; no untrusted text (a branch name, a title) is put into a
script; no job for pull requests runs on the team's own machine; nothing runs for a change of
documentation.

The first line has a digest of the rest, so that an unedited file can be updated.

Sources: GitHub's workflow syntax and its guide to security hardening; "Compared to GitHub Actions"
in Gitea's documentation, for what its runners ignore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Forge = Literal["gitea", "github"]

CHECKOUT = "actions/checkout@d23441a48e516b6c34aea4fa41551a30e30af803 # v6.1.0"
SETUP_PYTHON = "actions/setup-python@ece7cb06caefa5fff74198d8649806c4678c61a1 # v6.3.0"
PYTHON = "3.12"
HELM = "3.19.0"
HELM_SUMS = {
    "amd64": "a7f81ce08007091b86d8bd696eb4d86b8d0f2e1b9f6c714be62f82f96a594496",
    "arm64": "440cf7add0aee27ebc93fada965523c1dc2e0ab340d4348da2215737fc0d76ad",
}
"""SHA-256 of Helm's archives for Linux, which get.helm.sh publishes beside them. Source:
cert-manager's makefile, which pins the same."""
MARK = "# Made by lapwing ci init. Digest of the rest: "
FILES: dict[Forge, str] = {
    "github": ".github/workflows/lapwing.yaml",
    "gitea": ".gitea/workflows/lapwing.yaml",
}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a workflow depends on.

    `stack`: the project has a stack file; `built` is the environment that its services are built
    for, and `shipped` the one on a machine that the release branches are shipped to, if any;
    `over_ssh`: that machine is a server with `host`; `pull_secrets`: it pulls, and these variables
    of `lapwing ship` are secrets of the forge. `others` are the branches that are not
    shipped, because their versions are pre-releases or old ones.
    `install` are pip's arguments, quoted for a shell; `documentation` is patterns for
    `paths-ignore`; `secrets` are the names of those that the release reads. `folder` is the file's
    in the repository. `has_chart`: the release packages a Helm chart, which Helm lints.
    `is_keyless`: the release signs by the identity of its job.
    """

    forge: Forge
    install: str
    stack: bool
    built: str | None
    shipped: str | None
    branches: tuple[str, ...]
    documentation: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    folder: str = "."
    over_ssh: bool = False
    pull_secrets: tuple[str, ...] = ()
    has_chart: bool = False
    is_keyless: bool = False


def workflow(pipeline: Pipeline) -> str:
    """Write the whole file, with its first line."""
    jobs = []
    if pipeline.stack:
        jobs.append(_check(pipeline))
    if pipeline.shipped is not None:
        write = _ship_over_ssh if pipeline.over_ssh else _ship
        write = _ship_to_registry if pipeline.pull_secrets else write
        jobs.append(write(pipeline, pipeline.shipped))
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
    return f"""\
# You can edit this file: `lapwing ci init` then replaces it only with --force.
#
# Nothing runs for a pull request that changes only documentation, so a required status check would
# stay pending: make the check job required only if pull requests always change code, too.
{_FORGE_NOTES[pipeline.forge]}
name: lapwing

on:
  push:
    branches: {json.dumps(pipeline.branches)}
{ignored}{pull_requests}
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
    build = ""
    if pipeline.built is not None:
        build = f"""\
      - name: Build every service and run its tests
        run: lapwing ship --check --scan off --environment {pipeline.built}
{_in_folder(pipeline)}"""
    return f"""\
  check:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
{_install(pipeline, cached=True)}\
      - name: Check the stack file
        run: lapwing check
{_in_folder(pipeline)}\
{build}"""


def _ship_job(pipeline: Pipeline, label: str) -> str:
    """Return the beginning of the job `ship` on runners with a label, up to its checkout."""
    return f"""\
  ship:
    needs: check
    if: github.event_name == 'push'{_except_others(pipeline)}
    runs-on: {label}
    timeout-minutes: 60
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
"""


def _ship(pipeline: Pipeline, environment: str) -> str:
    label = "lapwing" if pipeline.forge == "gitea" else "[self-hosted, lapwing]"
    return f"""\
  # Runs on a self-hosted runner with the label `lapwing`, as the user of the agent of {environment}
  # (both use one LAPWING_HOME), and never for pull requests. Requires trivy or grype.
{_ship_job(pipeline, label)}\
      - name: Build, test, scan, and commit to the desired state
        run: |
          python3 -m venv "$RUNNER_TEMP/lapwing"
          "$RUNNER_TEMP/lapwing/bin/pip" install --quiet {pipeline.install}
          "$RUNNER_TEMP/lapwing/bin/lapwing" ship --environment {environment}
        env:
          LAPWING_ACTOR: ${{{{ github.actor }}}}
{_in_folder(pipeline)}"""


def _ship_over_ssh(pipeline: Pipeline, environment: str) -> str:
    return f"""\
  # `lapwing server key -e {environment}` allows the SSH key to deploy only this environment.
  # If the runner has trivy or grype, remove `--scan off`.
{_ship_job(pipeline, "ubuntu-latest")}\
{_install(pipeline)}\
      - name: Build and test, then deploy on the server
        run: |
          install -d -m 700 ~/.ssh
          printf '%s\\n' "$KNOWN_HOSTS" >> ~/.ssh/known_hosts
          eval "$(ssh-agent -s)" > /dev/null
          trap 'ssh-agent -k > /dev/null' EXIT
          printf '%s\\n' "$SSH_KEY" | ssh-add -q -
          unset SSH_KEY
          lapwing ship --scan off --environment {environment}
        env:
          SSH_KEY: ${{{{ secrets.LAPWING_SSH_KEY }}}}
          KNOWN_HOSTS: ${{{{ secrets.LAPWING_KNOWN_HOSTS }}}}
          LAPWING_ACTOR: ${{{{ github.actor }}}}
{_in_folder(pipeline)}"""


def _ship_to_registry(pipeline: Pipeline, environment: str) -> str:
    secrets = "".join(
        f"          {name}: ${{{{ secrets.{name} }}}}\n" for name in pipeline.pull_secrets
    )
    return f"""\
  # The machine of {environment} pulls what is committed. If the runner has trivy or grype, remove
  # `--scan off`.
{_ship_job(pipeline, "ubuntu-latest")}\
{_install(pipeline)}\
      - name: Build, test, push, and commit to the desired state
        run: lapwing ship --scan off --environment {environment}
        env:
{secrets}\
          LAPWING_ACTOR: ${{{{ github.actor }}}}
{_in_folder(pipeline)}"""


def _except_others(pipeline: Pipeline) -> str:
    names = (branch.replace("'", "''") for branch in pipeline.others)
    return "".join(f" && github.ref_name != '{name}'" for name in names)


def _release(pipeline: Pipeline) -> str:
    needs = ""
    if pipeline.stack:
        last = "ship" if pipeline.shipped is not None else "check"
        needs = f"    needs: {last}\n    if: github.event_name == 'push'\n"
    if pipeline.shipped is not None and pipeline.others:
        # The job `ship` is skipped on some branches.
        condition = "!failure() && !cancelled() && github.event_name == 'push'"
        needs = f"    needs: [check, ship]\n    if: ${{{{ {condition} }}}}\n"
    secrets = "".join(f"          {name}: ${{{{ secrets.{name} }}}}\n" for name in pipeline.secrets)
    identity = "      id-token: write\n" if pipeline.is_keyless else ""
    token = "secrets.GITEA_TOKEN" if pipeline.forge == "gitea" else "github.token"
    return f"""\
  release:
{needs}\
    runs-on: ubuntu-latest
    timeout-minutes: 30
    permissions:
      contents: write
      packages: write
{identity}\
    steps:
      - uses: {CHECKOUT}
        with:
          fetch-depth: 0
          persist-credentials: false
{_install(pipeline)}\
{_install_helm() if pipeline.has_chart else ""}\
      - name: Tag and publish the next version
        run: lapwing release
        env:
          LAPWING_FORGE_TOKEN: ${{{{ {token} }}}}
{secrets}\
{_in_folder(pipeline)}"""


def _install(pipeline: Pipeline, *, cached: bool = False) -> str:
    """Return the steps that install Lapwing.

    Every job can write the cache, so jobs with tokens do not read it.
    """
    cache = f"""\
          cache: pip
          cache-dependency-path: {FILES[pipeline.forge]}
"""
    return f"""\
      - uses: {SETUP_PYTHON}
        with:
          python-version: "{PYTHON}"
{cache if cached else ""}\
      - run: python -m pip install --quiet {pipeline.install}
"""


def _install_helm() -> str:
    """Return the step that installs Helm where the runner lacks it."""
    sums = "".join(
        f"          {digest}  helm-v{HELM}-linux-{name}.tar.gz\n"
        for name, digest in HELM_SUMS.items()
    )
    return f"""\
      - name: Install Helm to lint the chart
        run: |
          if command -v helm; then exit; fi
          cd "$RUNNER_TEMP"
          machine=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
          archive=helm-v{HELM}-linux-$machine.tar.gz
          curl -fsSLO --retry 3 "https://get.helm.sh/$archive"
          sha256sum --check --ignore-missing <<'SUMS'
{sums}\
          SUMS
          mkdir -p helm
          tar -xzf "$archive" -C helm --strip-components=1
          echo "$RUNNER_TEMP/helm" >> "$GITHUB_PATH"
"""


def _in_folder(pipeline: Pipeline) -> str:
    if pipeline.folder == ".":
        return ""
    return f"        working-directory: {json.dumps(pipeline.folder)}\n"
