"""The one error tree.

Every failure that a person can meet is a `LapwingError`. It carries what a surface needs to show
it: a stable `code` for programs, a sentence for people, a `hint` that says what to do next, where
in a file it was found, and the exit status. There is one printer for each surface (the terminal is
`lapwing.cli.output`), so no other place formats an error, and a traceback is always a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file that people write. Lines and columns count from 1."""

    file: Path
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [str(self.file)]
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        return ":".join(parts)


class LapwingError(Exception):
    """Something that a person has to know, with what to do about it.

    `message` says what is wrong in one sentence; `hint` what to do next; `where` names the place;
    `detail` is quoted material (the end of a build log), shown below and never reworded.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        where: Where | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(LapwingError):
    """The command was called in a way that cannot be carried out."""

    code = "usage"
    exit_status = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a stack file."""

    message: str
    where: Where
    hint: str | None = None


class StackFileError(LapwingError):
    """The stack file cannot be used. Holds every problem found, in the order of the file."""

    code = "stack-file"
    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(first.message, hint=first.hint, where=first.where)
        self.problems = tuple(problems)


class UnmanagedFileError(LapwingError):
    """A folder to write to holds files that Lapwing did not write, or that were changed since."""

    code = "unmanaged-file"
    exit_status = 2


class SourceError(LapwingError):
    """The source of a service is not what a build needs (no git repository, no lock file)."""

    code = "source"


class BuildError(LapwingError):
    """A build failed, hung, or made nothing. `log` is the whole output on disk."""

    code = "build"

    def __init__(
        self,
        message: str,
        *,
        log: Path | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.log = log


class TestsFailed(BuildError):
    """The tests of a service failed: nothing was shipped."""

    code = "test"


class ScanError(LapwingError):
    """A scan found what may not be shipped, could not be made, or there is no scanner."""

    code = "scan"


class NoSpaceError(LapwingError):
    """The disk that holds LAPWING_HOME is full. Nothing was changed."""

    code = "no-space"


class ReleaseMissingError(LapwingError):
    """A release that is asked for is not in the store any more."""

    code = "release-missing"


class DesiredStateError(LapwingError):
    """The desired-state repository cannot be read or written."""

    code = "desired-state"


class ConflictError(DesiredStateError):
    """Another deployment committed first."""

    code = "conflict"


class SecretError(LapwingError):
    """A secret is missing, or cannot be decrypted."""

    code = "secret"


class RequirementsError(LapwingError):
    """Several resources or secrets that a deployment needs are missing. Nothing was built."""

    code = "requirements"

    def __init__(self, problems: Sequence[LapwingError]) -> None:
        lines = [f"{p.message} {p.hint or ''}".rstrip() for p in problems]
        super().__init__(
            f"{len(problems)} requirements are missing; nothing was built.",
            detail="\n".join(lines),
        )


class ResourceError(LapwingError):
    """A database or cache that the stack needs cannot be found or does not start."""

    code = "resource"


class ReplicaError(LapwingError):
    """A replica did not start, or did not become healthy."""

    code = "replica"


class SmokeError(LapwingError):
    """A smoke test of a new release failed."""

    code = "smoke"


class JobError(LapwingError):
    """A job (a migration) failed; the deployment stopped before the switch."""

    code = "job"


class ProxyError(LapwingError):
    """Envoy does not start, or does not take a configuration."""

    code = "proxy"


class ProxyAwayError(ProxyError):
    """Envoy does not answer at the moment. It is started again by itself: ask again."""

    code = "proxy-away"


class PortTakenError(ProxyError):
    """The port that Envoy should listen on is used by another program."""

    code = "port-taken"


class AgentError(LapwingError):
    """The agent cannot be started, or does not answer."""

    code = "agent"


class DeploymentFailed(LapwingError):
    """A deployment was rejected or rolled back. The version before it still serves."""

    code = "deployment-failed"


class ImageReferenceError(LapwingError):
    """What should name an image, a tag or a digest cannot be one."""

    code = "image-reference"
    exit_status = 2


class RegistryError(LapwingError):
    """A registry cannot be reached, refuses, or answers what the specification does not allow."""

    code = "registry"


class RegistryLoginError(RegistryError):
    """A registry wants a login that is missing or that it does not take."""

    code = "registry-login"


class ImageMissingError(RegistryError):
    """A registry does not have what is asked for."""

    code = "image-missing"


class IntegrityError(RegistryError):
    """What a registry sends is not what its digest or its size says. Nothing was tagged."""

    code = "image-integrity"


class ReleaseError(LapwingError):
    """A version cannot be released: the history, the tag or a file prevents it."""

    code = "release"


class ForgeError(ReleaseError):
    """The forge (Gitea, GitHub) cannot be reached, refuses, or answers something unexpected."""

    code = "forge"


class ForgeLoginError(ForgeError):
    """The forge wants a token that is missing, expired, or may not do what is needed."""

    code = "forge-login"


class ClusterError(LapwingError):
    """A request to a Kubernetes cluster failed, or what was applied there does not become ready.

    `reason` and `status` are those of the API server's answer, if it gave one.
    """

    code = "cluster"
    reason: str = ""
    status: int = 0


class ClusterUnreachableError(ClusterError):
    """No cluster is known, or its API server is unreachable."""

    code = "cluster-unreachable"


class ClusterLoginError(ClusterError):
    """A cluster rejects the credentials, or none can be obtained."""

    code = "cluster-login"


class ToolMissingError(ClusterError):
    """The tool that creates local clusters (kind, minikube) is not installed."""

    code = "tool-missing"


class ContextError(UsageError):
    """The kubeconfig has no such context, or it must be named to be changed."""

    code = "context"


class KindMissingError(ClusterError):
    """The cluster lacks a kind of object: its custom resource definition is not installed."""

    code = "kind-missing"


class UnmanagedObjectError(ClusterError):
    """An object of that name exists and is not managed by this stack. It was not changed."""

    code = "unmanaged-object"


class QuotaError(ClusterError):
    """A quota or a limit of the cluster is exceeded."""

    code = "quota"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint with the closest known word, if one is similar."""
    import difflib

    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"Did you mean `{near[0]}`?" if near else None
