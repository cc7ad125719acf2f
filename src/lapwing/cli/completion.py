"""`lapwing completion`: print a shell completion script."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.settings import COMPLETION

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_obj
def command(context: Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  eval "$(lapwing completion bash)"   in ~/.bashrc
    zsh:   eval "$(lapwing completion zsh)"    in ~/.zshrc, after compinit
    fish:  lapwing completion fish > ~/.config/fish/completions/lapwing.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    from lapwing.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, shell
    context.printer.data(found(cli, {}, "lapwing", COMPLETION).source().strip())
