"""The options that several verbs share, each declared once.

`read_target` and `change_target` are the frame of a verb that asks or changes a target: they add
its options and pass the `Target` that these choose.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import complete
from lapwing.cli.context import Context, Output
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


def remember_output(ctx: click.Context, _parameter: click.Parameter, value: Output) -> Output:
    """Store the output format in the context, so that errors have it as well."""
    context = ctx.find_object(Context)
    if context is not None:
        context.output = value
    return value


def image_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--image SERVICE=REF`, repeatable, as `images`: references by service."""
    return click.option(
        "--image",
        "images",
        multiple=True,
        metavar="SERVICE=REF",
        callback=_images,
        help="On a cluster: the image of a service, instead of the one in the stack file.",
    )(function)


def _images(
    _ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    found = {}
    for text in value:
        service, separator, reference = text.partition("=")
        if not separator or not service or not reference:
            raise click.UsageError(f"--image takes SERVICE=REF, not {text!r}.")
        found[service] = reference
    return found


def identity_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--identity FILE`, a file of this machine also for an environment with `host`."""
    return click.option(
        "--identity",
        type=click.File("r"),
        metavar="FILE",
        help="A file with the age identity that decrypts the backup; `-` reads standard input.",
    )(function)


def refuse_identity(identity: TextIO | None) -> None:
    """Check that `--identity` is not given for a cluster. Raises UsageError."""
    if identity is not None:
        raise UsageError("--identity is for machines: backups of a cluster are not encrypted.")


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--output text|json`, which is stored in the context."""
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        expose_value=False,
        callback=remember_output,
        help="Text for people or JSON for programs.",
    )(function)


def environment_named(
    text: str, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option `--environment NAME` (also `--env`, `-e`) with `text` as its help."""
    names = ("-e", "--environment", "--env")
    return click.option(
        *names, metavar="NAME", help=text, shell_complete=complete.environments, **options
    )


declared_environment_option = environment_named(
    "The environment of the stack.", default="local", show_default=True
)


def environment_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-e NAME` and `--branch BRANCH`, which together are the name of one environment.

    The options are read in the order in which they are written: the second one joins them.
    """
    branch = click.option(
        "--branch",
        metavar="BRANCH",
        expose_value=False,
        callback=_remember_branch,
        help="The git branch, if the environment of -e has `branches`.",
    )
    environment = environment_named(
        "The environment of the stack.",
        default="local",
        show_default=True,
        callback=_with_branch,
    )
    return environment(branch(function))


BRANCH = "lapwing.branch"
"""Where the context of click has the branch until the environment is known."""


def _with_branch(ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    from lapwing.stack.branch_names import environment_of, split

    branch = ctx.meta.pop(BRANCH, None)
    if branch is None or split(value)[1] is not None:
        return value
    return environment_of(value, branch)


def _remember_branch(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value.strip():
        raise click.UsageError("--branch is empty.")
    ctx.meta[BRANCH] = value
    if "environment" in ctx.params:
        ctx.params["environment"] = _with_branch(ctx, parameter, ctx.params["environment"])


environments_option = environment_named("Only this environment; by default all except local.")
document_environment_option = environment_named(
    "The environment. Default: `production`, else the last one in a cloud or on a cluster, else "
    "`local`."
)


def context_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--context NAME`, as `cluster`."""
    return click.option(
        "--context", "cluster", metavar="NAME", help="On a cluster: the kubeconfig context."
    )(function)


def read_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add -e, --context and --output, and pass the `Target` that they choose."""

    @environment_option
    @context_option
    @output_option
    @click.pass_obj
    @functools.wraps(function)
    def call(context: Context, /, environment: str, cluster: str | None, **options: Any) -> Any:
        from lapwing.targets.base import ClusterOptions

        return function(context, context.target(environment, ClusterOptions(cluster)), **options)

    return call


def change_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add -e, --context, --yes and --output, and pass the `Target` that they choose.

    The function returns a DeployResult, which is printed.
    """

    @environment_option
    @context_option
    @click.option("--yes", is_flag=True, help="On a cluster: do not ask before a change.")
    @output_option
    @click.pass_obj
    @functools.wraps(function)
    def call(
        context: Context,
        /,
        environment: str,
        cluster: str | None,
        yes: bool,
        create: bool = False,
        **options: Any,
    ) -> int:
        from lapwing.cli import present
        from lapwing.targets.base import ClusterOptions

        target = context.target(environment, ClusterOptions(cluster, yes, create))
        context.prepare_home()
        return present.deploy_result(context, function(target, **options))

    return call
