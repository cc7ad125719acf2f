"""What the workflow of a project depends on, and the steps that its jobs share."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Forge = Literal["gitea", "github"]

CHECKOUT = "actions/checkout@d23441a48e516b6c34aea4fa41551a30e30af803 # v6.1.0"
SETUP_PYTHON = "actions/setup-python@ece7cb06caefa5fff74198d8649806c4678c61a1 # v6.3.0"
PYTHON = "3.12"
FILES: dict[Forge, str] = {
    "github": ".github/workflows/lapwing.yaml",
    "gitea": ".gitea/workflows/lapwing.yaml",
}


_NO_BREAK = "\N{WORD JOINER}"
"""Takes the place of a space at which a line must not end."""
SSH_KEY, KNOWN_HOSTS = "LAPWING_SSH_KEY", "LAPWING_KNOWN_HOSTS"
SIGNING_KEY = "LAPWING_SIGNING_KEY"
GOOGLE_AUTH = "google-github-actions/auth@7c6bc770dae815cd3e89ee6cdf493a5fab2cc093 # v3.0.0"
GOOGLE_PROVIDER = "LAPWING_CI_PROVIDER"
"""The variable of the forge with the name of the workload identity provider."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A secret of the forge, or a variable that is no secret; `meaning` is what to set it to."""

    name: str
    meaning: str
    is_secret: bool = True

    @property
    def expression(self) -> str:
        """The expression of its value."""
        return f"${{{{ {'secrets' if self.is_secret else 'vars'}.{self.name} }}}}"


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """A login at a registry by the identity of the job, without a secret.

    `variable` is the one of the registry, LAPWING_REGISTRY_<HOST>. `account` is a service account
    of Google, whose token is exchanged for the job's; without it, the token of the job is used.
    """

    variable: str
    account: str | None = None


@dataclass(frozen=True, slots=True)
class ShipJob:
    """The job that ships to an environment.

    `way`: `home` is a machine whose LAPWING_HOME the runner uses, `ssh` a server with `host`,
    `pull` one that pulls, `argo` a cluster with Argo CD, `direct` one that Lapwing applies.
    `settings` have to exist in the forge. `login` replaces those of the registry. `is_keyless`: the
    identity of the job signs the images. `scans`: the stack file has `scan`.
    """

    environment: str
    way: Literal["home", "ssh", "pull", "argo", "direct"]
    settings: tuple[Setting, ...] = ()
    login: RegistryLogin | None = None
    is_keyless: bool = False
    scans: bool = False

    @property
    def is_self_hosted(self) -> bool:
        """Whether it runs on a runner of the team, with the LAPWING_HOME there."""
        return self.way in ("home", "direct")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a workflow depends on.

    `stack`: the project has a stack file; `built` is the environment that its services are built
    for, and `ship` the job that ships the release branches, if any. `others` are the branches that
    are not shipped, because their versions are pre-releases or old ones.
    `install` are pip's arguments, quoted for a shell; `documentation` is patterns for
    `paths-ignore`. `settings` and `login` are those of the release, as in `ShipJob`. `folder` is
    the file's in the repository. `has_chart`: the release packages a Helm chart, which Helm lints.
    `is_keyless`: the release signs by the identity of its job. `reviewed` is the environment with
    `branches` on a server, to which pull requests are deployed.
    """

    forge: Forge
    install: str
    stack: bool
    built: str | None
    ship: ShipJob | None
    branches: tuple[str, ...]
    documentation: tuple[str, ...]
    settings: tuple[Setting, ...] = ()
    login: RegistryLogin | None = None
    others: tuple[str, ...] = ()
    folder: str = "."
    has_chart: bool = False
    is_keyless: bool = False
    reviewed: str | None = None


def checkout(*options: str) -> str:
    """Return the step that checks out the commit; it keeps no token in the clone."""
    lines = "".join(f"          {option}\n" for option in (*options, "persist-credentials: false"))
    return f"      - uses: {CHECKOUT}\n        with:\n{lines}"


def install(pipeline: Pipeline, *, cached: bool = False) -> str:
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


def google_login(login: RegistryLogin | None) -> str:
    """Return the step that exchanges the job's token for one of Google, if the login needs it.

    It writes no credentials file: a file in the workspace would be an uncommitted change.
    """
    if login is None or login.account is None:
        return ""
    return f"""\
      - uses: {GOOGLE_AUTH}
        id: google
        with:
          workload_identity_provider: ${{{{ vars.{GOOGLE_PROVIDER} }}}}
          service_account: {login.account}
          token_format: access_token
          create_credentials_file: false
          export_environment_variables: false
"""


def variables(settings: Sequence[Setting], login: RegistryLogin | None) -> str:
    """Return the lines of `env` with the secrets of a job and its login at the registry."""
    found = {setting.name: setting.expression for setting in settings if setting.is_secret}
    if login is not None:
        output = "steps.google.outputs.access_token" if login.account else "github.token"
        found[f"{login.variable}_TOKEN"] = f"${{{{ {output} }}}}"
    return "".join(f"          {name}: {value}\n" for name, value in found.items())


def in_folder(pipeline: Pipeline) -> str:
    """Return the line of a step that runs in the folder of the file."""
    if pipeline.folder == ".":
        return ""
    return f"        working-directory: {json.dumps(pipeline.folder)}\n"


def with_ssh_key(commands: str) -> str:
    """Return the script of a step that runs commands with an SSH key in an agent."""
    return f"""|
          install -d -m 700 ~/.ssh
          printf '%s\\n' "${KNOWN_HOSTS}" >> ~/.ssh/known_hosts
          eval "$(ssh-agent -s)" > /dev/null
          trap 'ssh-agent -k > /dev/null' EXIT
          printf '%s\\n' "${SSH_KEY}" | ssh-add -q -
          unset {SSH_KEY}
          {commands}"""


def forge_token(pipeline: Pipeline) -> str:
    """Return the expression of the token of a job."""
    return "secrets.GITEA_TOKEN" if pipeline.forge == "gitea" else "github.token"


def job_comment(note: str, settings: Sequence[Setting]) -> str:
    """Return the comment above a job: what it does, and the settings to create for it.

    No line ends within a command.
    """
    lines = textwrap.wrap(_joined(note), 96)
    if settings:
        lines.append("Create in the settings of the repository:")
    for setting in settings:
        kind = "secret" if setting.is_secret else "variable"
        text = f"the {kind} {setting.name}: {setting.meaning}"
        lines += textwrap.wrap(_joined(text), 94, initial_indent="- ", subsequent_indent="  ",
                               break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return "".join(f"  # {line}\n" for line in lines).replace(_NO_BREAK, " ")


def _joined(text: str) -> str:
    return re.sub("`[^`]*`", lambda code: code[0].replace(" ", _NO_BREAK), text)


def check_settings(settings: Sequence[Setting], job: str) -> str:
    """Return the step that fails if a setting of a job does not exist."""
    if not settings:
        return ""
    names = " ".join(setting.name for setting in settings)
    values = "".join(f"          {s.name}: {s.expression}\n" for s in settings)
    return f"""\
      - name: Check that the settings exist
        run: |
          missing=
          for name in {names}; do
            if [ -z "$(printenv "$name")" ]; then missing="$missing $name"; fi
          done
          if [ -n "$missing" ]; then
            echo "::error::Missing in the settings of the repository:$missing. The comment above" \\
              "the job \\`{job}\\` in the workflow explains them."
            exit 1
          fi
        env:
{values}"""
