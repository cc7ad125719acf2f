"""What every verb gets: the settings, the stack file of the folder, its target, and the printer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lapwing.cli.output import Printer
from lapwing.settings import Settings

if TYPE_CHECKING:
    from lapwing.stack.load import LoadedStack, StackFile
    from lapwing.targets.base import ClusterOptions, EnvironmentRef, Target
    from lapwing.targets.cluster import ClusterEnvironment

ARGUMENTS = "lapwing.arguments"
"""Where the context of click has the arguments of the command line, from the verb on."""
Output = Literal["text", "json", "markdown"]


@dataclass(slots=True)
class Context:
    """`directory` is the folder of `-C`, or the current one; `output` is set by the verb."""

    settings: Settings
    directory: Path
    printer: Printer
    output: Output = "text"
    _file: StackFile | None = field(default=None, init=False)

    @property
    def for_programs(self) -> bool:
        """Whether the output is JSON."""
        return self.output == "json"

    @property
    def stack_file(self) -> StackFile:
        """The stack file of the folder, which is read once. Raises UsageError if there is none."""
        from lapwing.stack.load import StackFile, find

        if self._file is None:
            self._file = StackFile(find(self.directory))
        return self._file

    def prepare_home(self) -> None:
        """Create the state folder: every verb that writes into it calls this first.

        Raises UsageError, and changes nothing, if it is a folder for something else.
        """
        from lapwing.system import home

        home.prepare(self.settings.home)

    def load(self, environment: str, *, folders: bool = True) -> LoadedStack:
        """Load the stack in an environment. Raises StackFileError."""
        return self.stack_file.load(environment, folders=folders)

    def ref(self, environment: str) -> EnvironmentRef:
        """Return the environment of the stack. Raises StackFileError or UnknownNameError."""
        from lapwing.targets.base import EnvironmentRef
        from lapwing.targets.select import check_environment

        check_environment(self.stack_file, environment, self.settings)
        return EnvironmentRef(self.stack_file.stack, environment)

    def target(self, environment: str, options: ClusterOptions | None = None) -> Target:
        """Return the target of an environment. Raises StackFileError or UsageError."""
        from lapwing.targets.base import ClusterOptions
        from lapwing.targets.select import select

        options = options or ClusterOptions()
        return select(self.stack_file, environment, self.settings, self.printer, options)

    def cluster(self, environment: str, name: str | None) -> ClusterEnvironment | None:
        """Return where an environment is on a cluster; None for one on a machine."""
        from lapwing.targets.base import ClusterOptions
        from lapwing.targets.select import cluster_of

        options = ClusterOptions(name)
        return cluster_of(self.stack_file, environment, self.settings, self.printer, options)


def accept_directory(command: click.Command) -> None:
    """Accept `-C DIR` after the name of a verb and of its subcommands as well."""
    if any("-C" in p.opts for p in command.params):
        return
    command.params.append(
        click.Option(
            ["-C", "directory_of_stack"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            expose_value=False,
            callback=enter,
            help="Use the stack of this folder.",
        )
    )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        accept_directory(inner)


def enter(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """Use the stack of the folder that an option or argument names."""
    context = ctx.find_object(Context)
    if value is not None and context is not None:
        context.directory = value
