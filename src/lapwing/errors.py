"""The one error tree.

Every failure that a user can cause or meet is a `LapwingError`. It carries what is shown of it: a
stable `code` for programs, a sentence, a `hint` with the next step, the location in a file, and the
exit status. Only `lapwing.cli.output` formats errors. A traceback is a bug of Lapwing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

MACHINE_HINT = "Install what runs stacks on a machine: `pip install 'lapwing-deploy[machine]'`."


class Location(NamedTuple):
    """A location in a file. Lines and columns count from 1."""

    file: Path
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return `file:line:column`, as far as it is known."""
        parts = [str(self.file)]
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        return ":".join(parts)


class LapwingError(Exception):
    """A failure that is shown to the user.

    `message` says in one sentence what failed, `hint` what to do next, `where` is the location in a
    file, and `detail` is quoted below the message (the end of a build log).
    """

    code: ClassVar[str] = "error"
    exit_status: int = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        where: Location | None = None,
        detail: str | None = None,
    ) -> None:
        """Create an error with its message and, if known, what helps to correct it."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.detail = detail

    def __str__(self) -> str:
        """Return the message after its location."""
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(LapwingError):
    """The arguments or a file are invalid: the command or the file has to be changed."""

    code = "usage"
    exit_status = 2


class StateError(LapwingError):
    """The environment has nothing that the verb could change, such as a deployment to abort."""

    code = "state"


class UnknownNameError(UsageError):
    """A name given to the command does not exist: of a service, an environment or a secret."""

    code = "unknown-name"


class Problem(NamedTuple):
    """One error in a stack file."""

    message: str
    where: Location
    hint: str | None = None


class StackFileError(LapwingError):
    """The stack file is invalid. `problems` has all of its errors, in the order of the file."""

    code = "stack-file"
    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Create an error for one or more problems; the first one is its message."""
        first = problems[0]
        super().__init__(first.message, hint=first.hint, where=first.where)
        self.problems = tuple(problems)


class UnmanagedFileError(LapwingError):
    """The output folder has files that Lapwing did not write, or that were changed since."""

    code = "unmanaged-file"
    exit_status = 2


class SourceError(LapwingError):
    """The source of a service cannot be built: no git repository, no commit, or no files."""

    code = "source"


class BuildError(LapwingError):
    """A build failed, timed out or produced nothing. `log` is the file with the whole output."""

    code = "build"

    def __init__(
        self,
        message: str,
        *,
        log: Path | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Create an error; `detail` is the part of the output that shows the cause."""
        super().__init__(message, hint=hint, detail=detail)
        self.log = log


class TestsFailed(BuildError):
    """The tests of a service failed. Nothing was shipped."""

    code = "test"


class ScanError(LapwingError):
    """A vulnerability scan failed, found too severe vulnerabilities, or no scanner is installed."""

    code = "scan"


class NoSpaceError(LapwingError):
    """The disk that holds LAPWING_HOME is full. Nothing was changed."""

    code = "no-space"


class ReleaseMissingError(LapwingError):
    """A release is no longer in the release store."""

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
    """Several things that a deployment needs are missing or invalid. Nothing was built."""

    code = "requirements"

    def __init__(self, problems: Sequence[LapwingError]) -> None:
        lines = [f"{p.message} {p.hint or ''}".rstrip() for p in problems]
        super().__init__(
            f"{len(problems)} requirements are not met; nothing was built.",
            detail="\n".join(lines),
        )
        self.exit_status = min(p.exit_status for p in problems)


class ResourceError(LapwingError):
    """A database or cache of the stack is not available or does not start."""

    code = "resource"


class BackupError(LapwingError):
    """A backup cannot be made, read or restored."""

    code = "backup"


class ReplicaError(LapwingError):
    """A replica did not start, or did not become healthy."""

    code = "replica"


class EngineError(LapwingError):
    """A container engine refused or failed."""

    code = "engine"


class EngineUnreachableError(EngineError):
    """No container engine is running, or it may not be used."""

    code = "engine-unreachable"


class SmokeError(LapwingError):
    """A smoke test of a new release failed."""

    code = "smoke"


class JobError(LapwingError):
    """A job (a migration) failed; the deployment stopped before the switch."""

    code = "job"


class ProxyError(LapwingError):
    """Envoy does not start, or rejects a configuration."""

    code = "proxy"


class ProxyUnreachableError(ProxyError):
    """Envoy does not respond. The agent restarts it; try again."""

    code = "proxy-unreachable"


class PortTakenError(ProxyError):
    """The port for Envoy is used by another program."""

    code = "port-taken"


class AgentError(LapwingError):
    """The agent cannot be started, or does not respond."""

    code = "agent"


class DeploymentFailed(LapwingError):
    """A deployment was rejected or rolled back. The previous release keeps serving."""

    code = "deployment-failed"


class ImageReferenceError(LapwingError):
    """An image reference, a tag or a digest is invalid."""

    code = "image-reference"
    exit_status = 2


class RegistryError(LapwingError):
    """A registry is unreachable, rejects a request, or violates the OCI specification."""

    code = "registry"


class RegistryLoginError(RegistryError):
    """A registry requires a login, or rejects the one that it got."""

    code = "registry-login"


class ImageMissingError(RegistryError):
    """A registry does not have an image, a tag or a blob."""

    code = "image-missing"


class IntegrityError(RegistryError):
    """Data from a registry does not match its digest or its size. Nothing was tagged."""

    code = "image-integrity"


class SigningKeyError(LapwingError):
    """A key for signatures of images is missing, invalid, or readable by others."""

    code = "signing-key"


class KeylessError(LapwingError):
    """An artifact cannot be signed or verified by the identity of a CI job."""

    code = "keyless"


class ReleaseError(LapwingError):
    """A version cannot be released because of the history, a tag or a file."""

    code = "release"


class ForgeError(ReleaseError):
    """The forge (Gitea, GitHub) is unreachable, or its response is an error or unexpected."""

    code = "forge"


class ForgeLoginError(ForgeError):
    """The token for the forge is missing, expired, or lacks a permission."""

    code = "forge-login"


class ServerConnectionError(LapwingError):
    """A server cannot be reached over SSH, refuses the login, or the connection was lost."""

    code = "server-connection"


class ServerError(LapwingError):
    """A server lacks what Lapwing needs, was not set up, or refuses a command."""

    code = "server"


class ClusterError(LapwingError):
    """A request to a Kubernetes cluster failed, or an applied object does not become ready.

    `reason` and `status` are from the response of the API server, if there was one.
    """

    code = "cluster"
    reason: str = ""
    status: int = 0


class ClusterUnreachableError(ClusterError):
    """No cluster is configured, or its API server is unreachable."""

    code = "cluster-unreachable"


class ClusterLoginError(ClusterError):
    """A cluster rejects the credentials, or none can be obtained."""

    code = "cluster-login"


class ToolMissingError(ClusterError):
    """The tool that creates local clusters (kind, minikube) is not installed."""

    code = "tool-missing"


class ContextError(UsageError):
    """The kubeconfig does not have the context, or a change needs `--context`."""

    code = "context"


class KindMissingError(ClusterError):
    """The cluster lacks a kind of object: its custom resource definition is not installed."""

    code = "kind-missing"


class UnmanagedObjectError(ClusterError):
    """An object of the same name exists and is not managed by this stack. It was not changed."""

    code = "unmanaged-object"


class QuotaError(ClusterError):
    """A quota or a limit of the cluster is exceeded."""

    code = "quota"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then its cause, and so on to the innermost one."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint with the closest known word, if one is similar or begins so."""
    import difflib

    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    near += [name for name in names if len(word) > 2 and name.startswith(word.lower())]
    return f"Did you mean `{names[near[0]]}`?" if near else None


def check_name(kind: str, name: str, known: Iterable[str], where: object) -> None:
    """Check that a service, environment or secret exists. Raises UnknownNameError.

    Every verb that takes such a name calls this, so that the answer to a wrong one is the same.
    """
    names = list(known)
    if name not in names:
        listed = f"Known {kind.replace(' or ', 's and ')}s: {', '.join(names) or 'none'}."
        hint = " ".join(filter(None, (did_you_mean(name, names), listed)))
        raise UnknownNameError(f"There is no {kind} `{name}` in {where}.", hint=hint)
