"""`new source`, `new model`: from somebody's table to a model, by asking, by flags, or by what the rows say."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, progress, say
from tiltyard.errors import BadInput
from tiltyard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tiltyard.scaffold.inferring import Said
    from tiltyard.scaffold.new_source import SourceRequest
    from tiltyard.scaffold.planned import ModelPlan, ModelRequest
    from tiltyard.scaffold.source_texts import SourcePlan

PANEL = "Bring data in"
commands = typer.Typer()
new = typer.Typer(help="Write a source or a model from what a table says.", no_args_is_help=True)
commands.add_typer(new, name="new", rich_help_panel=PANEL)

Yes = Annotated[bool, typer.Option("--yes", help="Take what was inferred for all that no option says; ask nothing.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")]


@new.command(
    "source",
    epilog="Example: tiltyard new source clinic appointments.csv --event-time ScheduledDay --planned AppointmentDay "
    "--written-later No-show=AppointmentDay --identifies PatientId",
)
def source(
    name: Annotated[str, typer.Argument(help="Name of the source, like clinic.", metavar="NAME")],
    file: Annotated[
        list[str],
        typer.Argument(
            help="An export (CSV, JSON lines or Parquet), as a path or an http(s) or s3:// address; several files of "
            "one header are one export; or where rows are "
            "to be fetched from: files like 's3://bucket/visits/*.csv', or a table of a database like "
            "'postgresql://host/shop#visit'.",
            metavar="FILE...|URL",
        ),
    ],
    table: Annotated[
        str | None, typer.Option(help="What one row is, like appointment. Default: after the file.")
    ] = None,
    event_time: Annotated[
        str | None,
        typer.Option(
            help="Column that tells when a row happened; or several, like day,hour or year,month,day.",
            metavar="COL[,COL]",
        ),
    ] = None,
    available_at: Annotated[
        str | None,
        typer.Option(
            help="Column that tells when a row was known, and each version of it, where it comes again under its "
            "--key. Default: when it happened. ingested_at: when it is loaded; then nothing is cut.",
            metavar="COL",
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Column that names a row.", metavar="COL")] = None,
    planned: Annotated[
        list[str] | None, typer.Option(help="Column that is known ahead, like a due date; repeat it.", metavar="COL")
    ] = None,
    written_later: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that is filled in after its row was known, and the one that tells when; repeat it.",
            metavar="COL[=WHEN]",
        ),
    ] = None,
    identifies: Annotated[
        list[str] | None, typer.Option(help="Column that identifies a person; repeat it.", metavar="COL")
    ] = None,
    zone: Annotated[str, typer.Option(help="Zone of times without one, like Europe/Vienna.")] = "UTC",
    month_first: Annotated[
        bool,
        typer.Option("--month-first", help="Of dates that may be read both ways, like 03/04/2025, the month is first."),
    ] = False,
    thousands: Annotated[
        str | None,
        typer.Option(
            help="What stands between the thousands of numbers in a text file, like . or ,; none: nothing. Default: "
            "what the file proves.",
            metavar="MARK",
        ),
    ] = None,
    country: Annotated[
        str | None, typer.Option(help="Country whose public holidays the source keeps, like BR.", metavar="CODE")
    ] = None,
    written_after: Annotated[
        str, typer.Option(help="How long after its row what is written later is known, where no column tells when.")
    ] = "30d",
    connection: Annotated[
        str | None,
        typer.Option(help="Connection of Airflow that says who reads the address, as AIRFLOW_CONN_NAME has it here."),
    ] = None,
    cursor: Annotated[
        str | None,
        typer.Option(help="Column of a table of a database by which it is told what is new.", metavar="COL"),
    ] = None,
    cut: Annotated[bool, typer.Option(help="Lay the rows of the file into the landing zone, a file a day.")] = True,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Look at a table nobody has described; write its contract and staging, and cut it into daily deliveries."""
    from tiltyard.scaffold import afar
    from tiltyard.scaffold.inferring import Said
    from tiltyard.scaffold.new_source import SourceRequest, look

    settings = Settings()
    later = dict(_pair(text) for text in written_later or ())
    said = Said(event_time, available_at, key, tuple(planned or ()), later, tuple(identifies or ()))
    after = options.duration("--written-after", written_after)
    newest_by = cursor or (None if available_at == "ingested_at" else available_at)
    with (
        afar.brought(settings, file[0], connection, newest_by)
        if len(file) == 1
        else afar.joined([Path(name) for name in file])
    ) as sample:
        request = SourceRequest(name, sample.path, table, zone, country, said, sample.place, cursor)
        request = replace(request, written_after=after, is_month_first=month_first)
        request = replace(request, thousands=_mark(thousands))
        plan = look(settings, request)
        if not (yes or dry_run):
            _must_be_asked()
            request = replace(request, said=_asked(plan, said))
            plan = look(settings, request)
        if undated := [column for column, when in plan.found.roles.written_later.items() if when is None]:
            caution(
                f"Nothing tells when {', '.join(undated)} was written: the export is cut as if that had been "
                f"{written_after} after its row; say --written-after for another time."
            )
        _write_source(settings, request, plan, after if cut else None, yes=yes, dry_run=dry_run, as_json=as_json)


def _write_source(
    settings: Settings,
    request: "SourceRequest",
    plan: "SourcePlan",
    written_after: timedelta | None,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show what was found, and write it; cut the file, unless nothing is to be cut or the rows are fetched."""
    from tiltyard.scaffold import cutting, write
    from tiltyard.scaffold.source_texts import texts

    name, written = request.name, texts(plan)
    if not as_json:
        _show(plan)
    for sentence in plan.found.notes:
        caution(sentence)
    if dry_run:
        if not yes:
            caution("Nothing was asked: what is not said by an option was inferred, as with --yes.")
        emit(_planned(written), as_json, lambda: _print(written))
        return
    paths = write.files(settings, written)
    done: dict[str, object] = {"source": name, "table": plan.table, "files": [str(path) for path in paths]}
    if plan.place is not None:
        (settings.landing / name).mkdir(parents=True, exist_ok=True)  # so that it is an active source
        done["next"] = f"tiltyard ingest --source {name}, and then tiltyard new model MODEL --source {name}"
        emit(done, as_json)
        return
    if written_after is not None and plan.available_at != "ingested_at":
        known = plan.found.roles.available_at
        try:
            with progress(as_json) as step:
                summary = cutting.cut(
                    settings, name, request.path, table=plan.table, known=known, written_after=written_after,
                    progress=step,
                )  # fmt: skip
        except Exception:
            write.taken_back(paths)
            raise
        done["cut"] = summary.to_json()
        if summary.caution:
            caution(summary.caution)
    done["next"] = f"tiltyard new model MODEL --source {name}"
    emit(done, as_json)


def _mark(given: str | None) -> str | None:
    """What stands between thousands, empty for nothing. Raises BadInput for what does not."""
    marks = {".": ".", ",": ",", "'": "'", " ": " ", "\u00a0": "\u00a0", "\u202f": "\u202f", "none": ""}
    if given is not None and given not in marks:
        raise BadInput(f"--thousands: {given!r} stands between no thousands; say ., a comma, ', a space or none.")
    return None if given is None else marks[given]


def _pair(text: str) -> tuple[str, str | None]:
    """`COL=WHEN` or `COL`."""
    column, _, when = text.partition("=")
    return column, when or None


def _must_be_asked() -> None:
    """Raises BadInput where nobody can be asked."""
    if not sys.stdin.isatty():
        raise BadInput(
            "This is no terminal, so nothing can be asked; say --yes to take what was inferred, or --dry-run."
        )


def _asked(plan: "SourcePlan", said: "Said") -> "Said":
    """What a person says of the columns, where no option has said it; what was inferred is offered."""
    from tiltyard.scaffold.inferring import Said

    roles = plan.found.roles
    columns = plan.found.table.columns
    headers = {column.name: column.header for column in columns}
    say("Columns: " + ", ".join(f"{column.header} ({column.kind})" for column in columns if not column.parts))
    say("Enter takes what stands in brackets.")

    def asked(question: str, found: str) -> str:
        return str(typer.prompt(question, default=found or "-")).strip().removeprefix("-")

    def several(question: str, given: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
        if given:
            return given
        answer = asked(f"{question} (several with commas, - none)", ", ".join(headers[name] for name in found))
        return tuple(part.strip() for part in answer.split(",") if part.strip())

    event_time = said.event_time or asked("Which column tells when a row happened?", headers[roles.event_time])
    available_at = said.available_at or asked("Which column tells when it was known (- none, ingested_at)?", "") or None
    key = said.key or asked("Which column names a row (- none)?", headers.get(roles.key or "", "")) or None
    planned = several("Which columns are known ahead, like a due date?", said.planned, roles.planned)
    guessed = tuple(
        f"{headers[name]}={headers[when]}" if when else headers[name] for name, when in roles.written_later.items()
    )
    later: Mapping[str, str | None] = said.written_later
    if not later:
        answer = asked(
            "Which columns are written later, and by which one is it known (COL=WHEN, with commas, - none)?",
            ", ".join(guessed),
        )
        later = dict(_pair(part.strip()) for part in answer.split(",") if part.strip())
        if not later and (outcome := asked("Which column do you want to predict, if one of these (- none)?", "")):
            later = dict([_pair(outcome)])  # nobody knew it with its row
    identifies = several("Which columns identify a person?", said.identifies, roles.identifies)
    return Said(event_time, available_at, key, planned, later, identifies)


def _show(plan: "SourcePlan") -> None:
    """What was found, for a person."""
    from tiltyard.scaffold.source_texts import describe

    form = plan.found.table.form
    columns = sum(not column.parts for column in plan.found.table.columns)
    say(
        f"{plan.found.table.rows:,} rows, {columns} columns; {form.kind}, {form.encoding}"
        + (f", parted by {form.delimiter!r}" if form.kind == "csv" else "")
        + (f"; numbers like 1{form.thousands or ''}234{form.decimal}5" if form.thousands or form.decimal == "," else "")
    )
    for word, found in describe(plan.found).items():
        say(f"  {word:<14} {found}")


def _planned(written: "Mapping[PurePosixPath, str]") -> dict[str, str]:
    return {str(path): text for path, text in written.items()}


def _print(written: "Mapping[PurePosixPath, str]") -> None:
    for path, text in written.items():
        say(f"\n# {path}\n{text}")


@new.command(
    "model",
    epilog="Example: tiltyard new model no_show --source clinic --label No-show --horizon 14 --rate-of PatientId\n\n"
    "tiltyard new model repurchase --source shop --entity customer=CustomerID --horizon 28",
)
def model(
    name: Annotated[str, typer.Argument(help="Name of the model, like no_show.", metavar="NAME")],
    source: Annotated[str, typer.Option(help="The source whose rows it is about.", metavar="NAME")],
    table: Annotated[str | None, typer.Option(help="Table of the source; default: its only one.")] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Column of the outcome: of a row one that is written later; with --entity one of the rows that come, "
            "left out where it is that one comes, or with --number how many do.",
            metavar="COL",
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            help="The value that is asked for, like Yes, or like '>15' of a number. Default: yes, or 1.",
            metavar="VALUE",
        ),
    ] = None,
    number: Annotated[bool, typer.Option("--number", help="The outcome is an amount, and no yes or no.")] = False,
    classes: Annotated[
        bool | None,
        typer.Option(
            "--classes",
            help="Every text of the outcome is asked for. Default where it has 3 to 20 and no --positive is given.",
        ),
    ] = None,
    entity: Annotated[
        str | None,
        typer.Option(
            help="Whom a prediction is about, where it is no single row: a column, or several that are one key "
            "together, like shop=store,city. Each is reviewed every few days; the outcome is in the rows that come.",
            metavar="[NAME=]COL[,COL]",
        ),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Days within which the outcome counts. Default: by what was delivered.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Planned column until which the outcome of each row counts, like the day of an appointment, however "
            "far ahead; --horizon is the longest then. Default, without --horizon: the one it is written with.",
            metavar="COL",
        ),
    ] = None,
    rate_of: Annotated[
        list[str] | None,
        typer.Option(
            help="Past rate of the outcome per value of this column, matured outcomes only; repeat it.", metavar="COL"
        ),
    ] = None,
    load_of: Annotated[
        list[str] | None, typer.Option(help="Rows per value of this column and day; repeat it.", metavar="COL")
    ] = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="Only what the row says of itself.")] = False,
    untold: Annotated[
        Literal["no", "unknown"] | None,
        typer.Option(
            help="What a row is without an outcome in time. Default: no, and unknown where a no is told as such."
        ),
    ] = None,
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "nobody-yet",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ask a question of a source's rows; write spine, label, feature views, suites, spec, card and exposure."""
    from tiltyard.scaffold import write
    from tiltyard.scaffold.new_model import look
    from tiltyard.scaffold.planned import ModelRequest

    settings = Settings()
    rates = _columns(rate_of, none=no_history)
    loads = _columns(load_of, none=no_history)
    request = ModelRequest(name, source, table, label, positive, number, entity, horizon, rates, loads, owner, untold)
    request = replace(request, until=until, asks_each=classes)
    if not (yes or dry_run):
        _must_be_asked()
        request = _asked_model(settings, request)
    plan = look(settings, request)
    if not as_json:
        _show_model(plan)
    for sentence in plan.notes:
        caution(sentence)
    if dry_run:
        emit(_planned(plan.texts), as_json, lambda: _print(plan.texts))
        return
    paths = write.files(settings, plan.texts, plan.exposure)
    nights = plan.nights
    end = nights.end
    in_airflow = f", and then tiltyard start --night {nights.last_rows}" if end < nights.last_rows else ""
    done = {
        "model": name,
        "files": [str(path) for path in paths],
        "first_trainable": nights.first_trainable.isoformat(),
        "rows_per_night": plan.rows_per_night,
        "next": f"tiltyard hindcast --model {name} --from {nights.begin} --to {end}{in_airflow}",
    }
    emit(done, as_json)


def _asked_model(settings: Settings, request: "ModelRequest") -> "ModelRequest":
    """What a person says of the question, where no option has said it."""
    from tiltyard.scaffold.new_model import candidates

    offered = candidates(settings, request)
    if request.entity is None and request.label is None and offered.groups:
        say("A prediction is about a row, or about whoever rows are of: " + ", ".join(offered.groups))
        answer = typer.prompt("Which?", default="row" if offered.labels else offered.groups[0]).strip()
        if answer != "row":
            request = replace(request, entity=answer)
            offered = candidates(settings, request)
    if offered.of_whom:
        return _asked_review(settings, request)
    if request.label is None:
        say("Columns that are written later: " + (", ".join(offered.labels) or "none"))
        request = replace(
            request,
            label=typer.prompt("Which one is asked for?", default=offered.labels[0] if offered.labels else None),
        )
    if request.positive is None and not request.is_number and request.asks_each is None:
        found = offered.values.get(request.label or "", ())
        if found:
            request = _asked_value(request, found)
    if request.rates is None:
        answer = typer.prompt(
            "Past rate of the outcome per which columns (- none)?", default=", ".join(offered.groups[:2]) or "-"
        )
        request = replace(request, rates=_names(answer))
    if request.loads is None:
        answer = typer.prompt("Rows per day per which columns (- none)?", default=", ".join(offered.groups[:1]) or "-")
        request = replace(request, loads=_names(answer))
    return _asked_horizon(settings, request)


def _asked_value(request: "ModelRequest", found: tuple[str, ...]) -> "ModelRequest":
    """Which value of the outcome is meant, where no option has said it."""
    from tiltyard.scaffold.asked import usual_positive

    shown = ", ".join(found[:6]) + (", …" if len(found) > 6 else "")
    usual = "each" if len(found) > 2 else usual_positive(found) or found[-1]
    answer = typer.prompt(f"It is {shown}. Which is meant (each: all of them; number: an amount)?", default=usual)
    if answer in ("each", "number"):
        return replace(request, is_number=answer == "number", asks_each=answer == "each")
    return replace(request, positive=answer)


def _asked_review(settings: Settings, request: "ModelRequest") -> "ModelRequest":
    """What a person says of the outcome of a question about whoever rows are of."""
    if request.label is None and not request.is_number:
        answer = typer.prompt(
            "Is it whether a row comes (comes), how many do (count), or the sum of a column (its name)?",
            default="comes",
        ).strip()
        if answer != "comes":
            request = replace(request, is_number=True, label=None if answer == "count" else answer)
    return _asked_horizon(settings, request)


def _asked_horizon(settings: Settings, request: "ModelRequest") -> "ModelRequest":
    from tiltyard.scaffold.new_model import look

    if request.horizon_days is None and request.until is None:
        plan = look(settings, request)
        for line in plan.by_horizon:
            say(line)
        if plan.until is None:
            days = typer.prompt("Within how many days?", default=plan.horizon_days, type=int)
            return replace(request, horizon_days=days)
        answer = typer.prompt("Within how many days, or until which planned column?", default=plan.until).strip()
        request = replace(request, horizon_days=int(answer)) if answer.isdigit() else replace(request, until=answer)
    return request


def _columns(given: "list[str] | None", *, none: bool) -> tuple[str, ...] | None:
    """The columns of an option that may be given again; `-` is none. None: it is to be inferred."""
    if given is None:
        return () if none else None
    return tuple(name for name in given if name != "-")


def _names(answer: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in answer.split(",") if part.strip() not in ("", "-"))


def _show_model(plan: "ModelPlan") -> None:
    """What was found, for a person."""
    for line in plan.found:
        say(line)
    say(
        f"  first night that can train: {plan.nights.first_trainable}; "
        f"last that tells something: {plan.nights.last_night}"
    )
    say("  not known: whether a column was filled in later without saying so; what was corrected in the export")
