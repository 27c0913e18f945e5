"""`earshot`: the commands, and what an error means for the exit code.

Each command imports what it needs when it runs: ScaNN, the model's runtime and the server take over a
second to load, and `--help` or a client of a far server shall not wait for them.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from earshot.errors import EarshotError

from . import (
    backup,
    build,
    compact,
    create,
    delete,
    demo,
    diff,
    explain,
    get,
    indexes,
    journal,
    prune,
    rebuild,
    remove,
    restore,
    rollback,
    search,
    serve,
    tokens,
    top,
    tune,
    upsert,
    verify,
    versions,
)
from .options import connected
from .output import console, exit_code, print_error

__all__ = ["app", "run"]

app = typer.Typer(
    name="earshot",
    help="Search by meaning on your own machine: a managed ScaNN over gRPC and HTTP.\n\n"
    "Start with `earshot demo`, or with files of your own: `earshot rebuild podcasts --source feed.xml`, "
    "then `earshot search podcasts 'what you are looking for'`, then `earshot serve`.\n\n"
    "Exit codes: 0 done, 1 the job failed, 2 the call was wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"earshot {metadata.version('earshot')}", highlight=False)
        raise typer.Exit


for module in (
    rebuild,
    build,
    serve,
    top,
    search,
    explain,
    upsert,
    remove,
    get,
    create,
    indexes,
    versions,
    tune,
    compact,
    journal,
    backup,
    restore,
    verify,
    diff,
    rollback,
    prune,
    delete,
    demo,
):
    app.command()(connected(getattr(module, module.__name__.rpartition(".")[2])))


app.add_typer(tokens.tokens, name="tokens")


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options that stand before any command."""
    del version


def run() -> None:
    """The console script. An error of ours is one line on standard error, never a stack trace."""
    try:
        app()
    except EarshotError as error:
        print_error(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # `earshot … | head`
        sys.stderr.close()
