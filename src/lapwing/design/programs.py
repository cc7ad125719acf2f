"""Programs that a job installs if the runner lacks them, from archives with pinned digests.

The projects publish the digests beside the archives. Sources: tools/00_mod.mk of cert-manager's
makefile-modules, which pins the same ones; for Trivy also several other repositories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunnerProgram:
    """A program in an archive for Linux at the URL `place`, with the SHA-256 for each architecture.

    `amd64` and `arm64` are the values of `$machine` in `archive`, and the keys of `sums`. Nothing
    is installed if the runner has the program or one of `others`. `top`: the archive has one
    top-level folder, which is stripped.
    """

    name: str
    title: str
    place: str
    archive: str
    amd64: str
    arm64: str
    sums: Mapping[str, str]
    others: tuple[str, ...] = ()
    top: bool = False


HELM = RunnerProgram(
    "helm",
    "Install Helm to lint the chart",
    "https://get.helm.sh",
    "helm-v3.19.0-linux-$machine.tar.gz",
    "amd64",
    "arm64",
    {
        "amd64": "a7f81ce08007091b86d8bd696eb4d86b8d0f2e1b9f6c714be62f82f96a594496",
        "arm64": "440cf7add0aee27ebc93fada965523c1dc2e0ab340d4348da2215737fc0d76ad",
    },
    top=True,
)
TRIVY = RunnerProgram(
    "trivy",
    "Install Trivy to scan for vulnerabilities",
    "https://github.com/aquasecurity/trivy/releases/download/v0.72.0",
    "trivy_0.72.0_Linux-$machine.tar.gz",
    "64bit",
    "ARM64",
    {
        "64bit": "bbb64b9695866ce4a7a8f5c9592002c5961cab378577fa3f8a040df362b9b2ea",
        "ARM64": "2ca2c023109c2db6b2b77366b6717291452d4531167377d95c79547f0c8e3467",
    },
    others=("grype",),
)


def install_step(program: RunnerProgram) -> str:
    """Return the step that installs a program where the runner lacks it."""
    found = " || ".join(f"command -v {name}" for name in (program.name, *program.others))
    sums = "".join(
        f"          {digest}  {program.archive.replace('$machine', machine)}\n"
        for machine, digest in program.sums.items()
    )
    strip = " --strip-components=1" if program.top else ""
    return f"""\
      - name: {program.title}
        run: |
          if {found}; then exit; fi
          cd "$RUNNER_TEMP"
          machine=$(uname -m | sed 's/x86_64/{program.amd64}/; s/aarch64/{program.arm64}/')
          archive={program.archive}
          curl -fsSLO --retry 3 "{program.place}/$archive"
          sha256sum --check --ignore-missing <<'SUMS'
{sums}\
          SUMS
          mkdir -p {program.name}
          tar -xzf "$archive" -C {program.name}{strip}
          echo "$RUNNER_TEMP/{program.name}" >> "$GITHUB_PATH"
"""
