"""Where the command line begins: the app with all its groups, and `main`, in which every error ends."""

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

import tiltyard
from tiltyard import private, redaction, release
from tiltyard.cli import (
    alerts,
    costs,
    data,
    erasing,
    leakage,
    lifecycle,
    looking,
    new,
    nights,
    online,
    opening,
    operating,
    past,
    portfolio,
    roles,
    serving,
    stages,
    verifying,
)
from tiltyard.cli.narrow import fit
from tiltyard.cli.output import caution, err, print_error
from tiltyard.errors import TiltyardError
from tiltyard.settings import NO_TELEMETRY, Settings, unknown_variables
from tiltyard.words import ended, meant

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for group in (
    lifecycle, looking, opening, new, data, stages, portfolio, nights, operating, costs, alerts, verifying, erasing,
    roles, past, leakage, serving, online,
):  # fmt: skip
    app.add_typer(group.commands)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"tiltyard {tiltyard.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """A portfolio of machine-learning models in production, on one set of rails."""
    if "--help" not in sys.argv:
        _look_at_settings()


def _look_at_settings() -> None:
    """Warn of variables that are no settings and of sources that there are not. Raises BadInput for a stage's limit
    that is none."""
    from tiltyard.edge import limits

    for sentence in unknown_variables(os.environ):
        caution(sentence)
    settings = Settings()
    limits.limits(settings)
    if "TILTYARD_SOURCES" in os.environ:
        from tiltyard.prepare import contracts

        names = sorted({*contracts.sources(settings), *contracts.sources(release.in_force(settings))})
        for source in settings.sources:
            if names and source not in names:
                caution(ended(f"TILTYARD_SOURCES: there is no source '{source}'{meant(source, names)}"))


def main() -> None:
    """Entry point. A user's mistake ends in one sentence and an exit code, never in a traceback."""
    redaction.install()
    os.environ.update(NO_TELEMETRY)
    private.keep()
    fit(app, shutil.get_terminal_size().columns)
    try:
        code = app(
            prog_name="tiltyard", standalone_mode=False
        )  # what typer.Exit carried, or what a command returned: nothing
    except TiltyardError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _interrupted()
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":  # DuckDB's word for Ctrl-C
            _interrupted()
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's usage errors
            sentence = error.format_message()
            if not sentence:  # a group without a command: its help is printed already, and says it all
                sys.exit(error.exit_code)
            context = getattr(error, "ctx", None)
            sentence = _plain(sentence, getattr(error, "param", None))
            _fail(f"{sentence} Try {context.command_path if context else 'tiltyard'} --help.", error.exit_code)
        if isinstance(error, ValidationError) and error.title == "Settings":
            _fail(_unset(error), 2)
        from tiltyard import postgres  # with its drivers, which most commands load by themselves

        if refused := postgres.forbidden(Settings(), error):
            _fail(str(refused), refused.exit_code)
        reason = _no_room(error)
        if not reason:
            redaction.install()  # typer prints what ends a process in a way of its own
            raise
        _fail(
            f"{Settings().home} cannot be written to ({reason}); make room there, or set TILTYARD_HOME to a folder of "
            "your own.",
            2,
        )
    sys.exit(code or 0)


def _plain(sentence: str, parameter: object) -> str:
    """What is wrong with an argument in our words, where the library has others; and both spellings of a yes or no."""
    for theirs, ours in _THEIRS.items():
        sentence = re.sub(theirs, ours, sentence)
    for other in getattr(parameter, "secondary_opts", ()):
        sentence = re.sub(r"^Missing option '([^']+)'", rf"Missing option: give '\1' or '{other}'", sentence)
    return f"{sentence.rstrip('.')}."


_THEIRS = {
    r"Input should be a valid number\b[^.]*": "give a number, like 2.5",
    r"Input should be a valid integer\b[^.]*": "give a whole number, like 3",
    r"Input should be less than or equal to (\S+)": r"give \1 at most",
    r"Input should be greater than or equal to (\S+)": r"give \1 at least",
    r"Input should be less than (\S+)": r"give less than \1",
    r"Input should be greater than (\S+)": r"give more than \1",
}
"""How a library words what is wrong with a number → how we do."""


def _interrupted() -> NoReturn:
    err.print("Interrupted; what was committed is kept, and the same command goes on from there.")
    sys.exit(130)


def _fail(sentence: str, code: int) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": sentence}))
    print_error(sentence)
    sys.exit(code)


def _unset(error: ValidationError) -> str:
    """What is wrong with a setting; never its value, which may be a secret."""
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    return f"TILTYARD_{'_'.join(map(str, first['loc'])).upper()} cannot be read: {reason}; mend or unset it."


def _no_room(error: Exception) -> str | None:
    """Why the home takes no files, when that is what stopped the command."""
    if "No space left on device" in str(error):  # also what DuckDB and PostgreSQL say
        return "no space left on device"
    home = Settings().home
    if isinstance(error, OSError) and error.filename and Path(os.fsdecode(error.filename)).is_relative_to(home):
        refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)
        return error.strerror if refused or not home.is_dir() else None
    return None
