"""The jobs that deploy pull requests to environments of branches, and remove these."""

from __future__ import annotations

from lapwing.design.pipeline import (
    KNOWN_HOSTS,
    SSH_KEY,
    Pipeline,
    Setting,
    check_settings,
    checkout,
    forge_token,
    in_folder,
    install,
    job_comment,
    with_ssh_key,
)

BRANCHES_KEY = "LAPWING_BRANCHES_SSH_KEY"
PULL_REQUEST = "github.event_name == 'pull_request' && github.event.action"
_OWN = "github.event.pull_request.head.repo.full_name == github.repository"
"""Not of a fork: its code must not run with the secrets of the team."""
_HAS_SECRETS = f"{_OWN} && github.actor != 'dependabot[bot]'"
"""Dependabot's pull requests get no secrets. Source: GitHub's "Dependabot on GitHub Actions"."""
SCHEDULE = """\
  schedule:
    - cron: "17 4 * * *"
"""
"""The time (UTC) at which environments without a branch are removed each day."""


def deploy(pipeline: Pipeline, environment: str) -> str:
    """Return the job that deploys a pull request to the environment of its branch."""
    note = (
        "Deploys each pull request to an environment of its branch; those of forks are not "
        "deployed."
    )
    settings = _settings(environment)
    script = f'lapwing ship --scan off --environment {environment} --branch "$BRANCH"'
    return f"""\
{job_comment(note, settings)}\
  deploy-branch:
    needs: check
    if: {PULL_REQUEST} != 'closed' && {_HAS_SECRETS}
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
{check_settings(settings, "deploy-branch")}\
{checkout("ref: ${{ github.head_ref }}")}\
{install(pipeline)}\
      - name: Build and test, then deploy on the server
        run: {with_ssh_key(script)}
        env:
{_VARIABLES}\
{in_folder(pipeline)}"""


def remove(pipeline: Pipeline, environment: str) -> str:
    """Return the job that removes the environment of a pull request, or those of gone branches."""
    ended = f"({PULL_REQUEST} == 'closed' && {_HAS_SECRETS})"
    script = f"""\
if [ -n "$BRANCH" ]; then
            lapwing down --volumes --environment {environment} --branch "$BRANCH"
          else
            lapwing down --gone --environment {environment}
          fi"""
    return f"""\
  # Removes the environment of a closed pull request, and otherwise those whose branch was deleted.
  remove-branches:
    if: github.event_name == 'delete' || github.event_name == 'schedule' || {ended}
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
{checkout()}\
{install(pipeline)}\
      - name: Remove environments
        run: {with_ssh_key(script)}
        env:
{_VARIABLES}\
          LAPWING_FORGE_TOKEN: ${{{{ {forge_token(pipeline)} }}}}
{in_folder(pipeline)}"""


def _settings(environment: str) -> tuple[Setting, Setting]:
    key = (
        f"a private SSH key. Allow its public key with `lapwing server key -e {environment} "
        "FILE.pub`: it can only deploy, list and remove these environments."
    )
    known = "the line of the server in ~/.ssh/known_hosts."
    return Setting(BRANCHES_KEY, key), Setting(KNOWN_HOSTS, known)


_VARIABLES = f"""\
          {SSH_KEY}: ${{{{ secrets.{BRANCHES_KEY} }}}}
          {KNOWN_HOSTS}: ${{{{ secrets.{KNOWN_HOSTS} }}}}
          LAPWING_ACTOR: ${{{{ github.actor }}}}
          BRANCH: ${{{{ github.head_ref }}}}
"""
