"""`open mlflow`, `open dbt-docs`: pages of the tools that are at work here, on what is here."""

from typing import Annotated

import typer

from tiltyard import release
from tiltyard.cli.options import Json
from tiltyard.cli.output import emit, say
from tiltyard.settings import Settings

PANEL = "Look"
commands = typer.Typer()
opening = typer.Typer(help="Open the pages of MLflow or of dbt on what is here.", no_args_is_help=True)
commands.add_typer(opening, name="open", rich_help_panel=PANEL, epilog="Example: tiltyard open mlflow")


@opening.command("mlflow", epilog="Example: tiltyard open mlflow --port 5000")
def open_mlflow(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    as_json: Json = False,
) -> None:
    """Show MLflow's pages of every training: runs, figures, pictures, versions. On 127.0.0.1 only; Ctrl-C ends it.

    They are to be looked at: which version serves is decided by the gate and kept in the ledger, which MLflow's aliases
    follow. A promotion, an alias or a stage that is set there has no effect, and is told in tiltyard status."""
    from tiltyard.edge import opening as edge

    with edge.mlflow(Settings(), port) as (address, wait):
        emit({"url": address}, as_json, lambda: say(f"MLflow is at {address}; Ctrl-C ends it."))
        wait()


@opening.command("dbt-docs", epilog="Example: tiltyard open dbt-docs")
def open_dbt_docs(as_json: Json = False) -> None:
    """Write dbt's pages of the tables: what each is, of which columns, and what it is made of. One file, for any
    browser, which needs no server."""
    from tiltyard.edge import opening as edge

    path = edge.dbt_docs(release.in_force(Settings()))
    emit({"file": str(path)}, as_json, lambda: say(f"Open {path.as_uri()} in a browser."))
