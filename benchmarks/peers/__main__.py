"""`python -m benchmarks.peers prepare | check [PEER …]`: the peers' environments, and whether their drivers work."""

from typing import Annotated

import typer

from benchmarks.peers.check import Broken, check
from benchmarks.peers.environments import PEERS, NotPrepared, commands
from benchmarks.running.servers import server

Names = Annotated[list[str] | None, typer.Argument(metavar="[PEER]...", help=f"Of {', '.join(PEERS)}; default: all.")]
program = typer.Typer(help=__doc__, no_args_is_help=True)


@program.command("prepare")
def prepare_all(peers: Names = None) -> None:
    """Install what each peer needs, which a run would do otherwise. Exit code 1 if one cannot be had."""
    prepared = commands(peers or PEERS)
    for peer, command in prepared.items():
        typer.echo(str(command) if isinstance(command, NotPrepared) else f"{peer}: {' '.join(command)}")
    raise typer.Exit(any(isinstance(command, NotPrepared) for command in prepared.values()))


@program.command("check")
def check_all(peers: Names = None) -> None:
    """Run each task of each driver, small. Exit code 1 if one does not keep the protocol or cannot be had."""
    failed = False
    with server() as url:
        for peer, command in commands(peers or PEERS).items():
            try:
                if isinstance(command, NotPrepared):
                    raise command
                about = check(peer, command, url)
                typer.echo(f"{about['name']} {about['version']}: all tasks")
            except (NotPrepared, Broken) as error:
                failed = True
                typer.echo(f"FAILED {error}", err=True)
    raise typer.Exit(failed)


if __name__ == "__main__":
    program()
