"""The task that is running: what Airflow tells it, and what it says to Airflow."""

import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow.sdk import Asset, AssetAlias, BaseOperatorLink, Connection, Context, PokeReturnValue, get_current_context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    DownstreamTasksSkipped,
)
from airflow.sdk.log import mask_secret
from pydantic import JsonValue

from tiltyard import clock, private, redaction, release
from tiltyard.edge import causers, log_lines, metering, resting
from tiltyard.edge.causers import Posted
from tiltyard.edge.logins import NOBODY
from tiltyard.errors import BadInput, Fenced, TiltyardError, Unavailable
from tiltyard.records import JsonObject
from tiltyard.settings import Settings
from tiltyard.stages import StageName, split
from tiltyard.words import line, meant

if TYPE_CHECKING:
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)

MANUAL = "manual"
"""What Airflow calls a run that somebody has started."""
BEGUN = "begun"
"""Under this key the first task of a run of a source's features says which night it is."""
REQUESTED_BY = "requested_by"
"""In an event's extra: the people who started the run that announced it."""
PAGES = "/tiltyard/"
"""Where the plugin serves its pages, below Airflow's address."""
REPORT_LINK = "Report"
"""The label of the button on a task."""


class TaskKey(NamedTuple):
    """Which task of which run of which DAG."""

    dag_id: str
    """Id of its DAG."""
    run_id: str
    """Id of the run."""
    task_id: str
    """Id of the task in its DAG."""


# -- what it is told ------------------------------------------------------------------------------


def connection(name: str) -> str | None:
    """A connection as Airflow has it, as JSON, from wherever it looks for one; None where it has none of that name."""
    try:
        found: str = Connection.get(name).as_json()
    except AirflowNotFoundException:
        return None
    return found


def chosen_night() -> datetime | None:
    """The night that the run's parameter names; None where it was left empty."""
    as_of = (get_current_context().get("params") or {}).get("as_of")
    return clock.require_closed(clock.parse_night(as_of), clock.now()) if as_of else None


def is_by_hand() -> bool:
    """Whether somebody has started this run, in Airflow's pages or through its API: its logical date is then that of
    the button, and says nothing of a night."""
    return bool(get_current_context()["dag_run"].run_type == MANUAL)  # an enum of texts, and its str() is another one


def require_known() -> None:
    """Raises BadInput where the run's conf names what means nothing to its DAG, like a misspelled `as_of`: whoever gave
    it would get another night."""
    with suppress(RuntimeError):  # no task runs: somebody has the rails opened for another reason
        context = get_current_context()
        dag = context.get("dag")
        if dag is None:
            return
        known = sorted(dag.params)
        unknown = sorted({*(context["dag_run"].conf or {})} - {*known})
        if unknown:
            there = f"it takes {', '.join(known)}" if known else "it takes none"
            raise BadInput(f"The run's conf names '{unknown[0]}'{meant(unknown[0], known)}; {there}. Start it anew.")


def chosen_models() -> list[str]:
    """The models that the run's parameter names; none where it was left empty."""
    return [str(name) for name in (get_current_context().get("params") or {}).get("models") or []]


def night() -> datetime:
    """The one `as_of` of a run that has a data interval of its own: its parameter, else its interval's end."""
    if chosen := chosen_night():
        return chosen
    end, _ = interval_end()
    return clock.midnight(end.date())


def interval_end() -> tuple[datetime, datetime]:
    """When the run's data interval ends, and when the run began."""
    run = get_current_context()["dag_run"]
    end = run.data_interval_end or run.logical_date or run.run_after
    return end.astimezone(UTC), (run.start_date or run.run_after).astimezone(UTC)


def announced_nights() -> set[date]:
    """The nights in the extras of the events that started this run."""
    return nights_of(get_current_context().get("triggering_asset_events") or {})


def nights_of(events: Mapping[Any, Sequence[Any]]) -> set[date]:
    """The distinct nights in the extras of asset events; several runs' events may share one."""
    extras = [event.extra or {} for group in events.values() for event in group]
    texts = [text for extra in extras for text in _as_list(extra.get("as_of"))]
    return {clock.parse_as_of(text).date() for text in texts}


def is_first_attempt() -> bool:
    """Whether no attempt at this task went before, which may have worked and not have announced it."""
    return int(get_current_context()["ti"].try_number) <= 1


def is_retry(retries: int) -> bool:
    """Whether Airflow gave up an earlier attempt at this task, and no person has cleared it since: a clearing raises
    how often it may be tried above the task's own `retries`."""
    ti = get_current_context()["ti"]
    return not is_first_attempt() and int(ti.max_tries) <= retries


def key() -> TaskKey:
    """Which task of which run this is."""
    ti = get_current_context()["ti"]
    return TaskKey(ti.dag_id, ti.run_id, ti.task_id)


def requesters() -> tuple[str, ...]:
    """Who started this run, or the runs that announced what it works on, or posted that by hand: users, UNKNOWN for
    somebody of whom nothing is known, or `airflow` for a schedule."""
    context = get_current_context()
    if user := context["dag_run"].triggering_user_name:
        return (user,)
    events = [event for group in (context.get("triggering_asset_events") or {}).values() for event in group]
    people = {name for event in events for name in _as_list((event.extra or {}).get(REQUESTED_BY))}
    by_hand = [Posted(event.asset.name, event.asset.uri, event.timestamp) for event in events
               if event.source_task_id is None]  # fmt: skip
    return tuple(sorted(people.union(causers.posters(Settings(), by_hand)))) or (NOBODY,)


def trainers(settings: Settings) -> str:
    """Who asked for what this run trains, or puts in force, as a text: those who started it, and those who had it done
    once more."""
    this, since = key(), get_current_context()["dag_run"].start_date
    again = causers.repeaters(settings, this.dag_id, this.run_id, since or clock.now())
    asked = [name for name in requesters() if name != NOBODY or not again]
    return ", ".join(dict.fromkeys((*asked, *again)))


def begun() -> datetime | None:
    """The `as_of` that the first task of this run of a source's features has begun with; None where it has not, as
    where that was refused."""
    said = handed_on("ingest", BEGUN)
    return clock.parse_as_of(str(said["as_of"])) if said is not None else None


def handed_on(task_id: str, key: str) -> JsonObject | None:
    """What another task of this run has handed on under a key; None where it has not."""
    value: JsonObject | None = get_current_context()["ti"].xcom_pull(task_ids=task_id, key=key)
    return value


# -- how it works ---------------------------------------------------------------------------------


@contextmanager
def accepting() -> Iterator["Rails"]:
    """The rails as `working` gives them, once what is acceptable of the checkout is in force."""
    from tiltyard.prepare import releasing

    with working(Settings()) as checkout:
        in_force, accepted = releasing.in_force(checkout, clock.now(), by=trainers(checkout.settings))
        for text in accepted.refused:
            log.warning("%s", text)
        yield in_force


@contextmanager
def working(settings: Settings | None = None) -> Iterator["Rails"]:
    """The rails, with errors in Airflow's terms. Without `settings` with what is in force.

    What a person has to mend, what a check holds, and work that a newer attempt has taken over fail at once;
    what was only out of reach, and everything unforeseen, is retried.
    """
    from tiltyard import rails  # with the lake and pandas, which a DAG file must not import when it is parsed

    end_where_it_crashes()
    log_lines.quiet()
    _keep_secrets()
    private.keep()
    try:
        require_known()
        with rails.opened(resting.noted(settings or release.in_force(Settings()))) as opened, _metered(opened):
            yield opened
    except Unavailable:
        raise
    except Fenced as error:
        raise AirflowFailException(f"A newer attempt is at work, this one gave way: {error}") from error
    except TiltyardError as error:
        raise AirflowFailException(str(error)) from error


@contextmanager
def _metered(rails: "Rails") -> Iterator[None]:
    """What the task has used is put down when it ends, well or badly: for the models that it had in its hands, else
    for whom its DAG is. Nothing where no task runs."""
    try:
        yield
    finally:
        if at_work := _at_work():
            metering.put_down(rails, metering.meter.settle(*at_work))


def _at_work() -> tuple[StageName, str, date] | None:
    """The stage, whom its DAG is for, and the night that the run is about, the newest where there are several; None
    where it is about none. A run of features whose night was refused is about none: today's would become the newest."""
    try:
        stage, of = split(key().dag_id)
        if stage == "features":
            as_of = begun()
            return (stage, of, as_of.date()) if as_of else None
        days = announced_nights()
        return stage, of, max(days) if days and not chosen_night() else night().date()
    except (KeyError, RuntimeError, TiltyardError):  # no task, no stage of ours, or no night, which the task will say
        return None


def _keep_secrets() -> None:
    """Neither this process nor Airflow, which writes down what it says, puts a secret into a log."""
    redaction.install()
    for value in redaction.secrets(os.environ):
        mask_secret(value)


def end_where_it_crashes() -> None:
    """Let a process end when a library reads where there is no memory, and the log say in which line.

    Whoever parses a DAG file has Airflow's handler of that signal, in Python, from then on, and a task parses its own.
    Such a handler is run once the faulty instruction is done, which it never is: the process would come back to it for
    ever, at full load.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    faulthandler.enable(2)


def say_why(context: Context) -> None:
    """The last line of a failed task's log: the page that shows why, and the sentence. It stands below what Airflow
    prints of the failure, outside of the lines that it folds away; the address comes first: long lines are cut."""
    from tiltyard.edge.airflow_settings import address

    error = context.get("exception")
    if error is None:  # it was ended from outside, and nobody knows why
        return
    is_ours = isinstance(error, AirflowException | TiltyardError)
    why = line(str(error) if is_ours else f"{type(error).__name__}: {error}")
    ti = context["ti"]
    shown = _reports.get(TaskKey(ti.dag_id, ti.run_id, ti.task_id))
    log.info("::endgroup::")
    log.error("%s%s", f"{address(Settings())}{shown} shows it: " if shown else "", why)


def looking(landed: JsonObject | None) -> PokeReturnValue:
    """What a task that looks for a delivery again and again returns: it is over once something has come of it."""
    return PokeReturnValue(is_done=landed is not None, xcom_value=landed)


def skip(reason: str) -> NoReturn:
    """End the task as skipped: what follows is skipped too, and its outlets stay silent."""
    raise AirflowSkipException(reason)


def fail(reason: str) -> NoReturn:
    """End the task as failed, for good: a person has to see to it."""
    raise AirflowFailException(reason)


def end_here(*task_ids: str) -> NoReturn:
    """End the task as a success, and skip these that follow; what it announced is announced."""
    raise DownstreamTasksSkipped(tasks=list(task_ids))  # type: ignore[no-untyped-call]


# -- what it says ---------------------------------------------------------------------------------


def hand_on(key: str, value: JsonObject) -> None:
    """Leave something for the tasks that follow, whatever becomes of this one."""
    get_current_context()["ti"].xcom_push(key=key, value=value)


def label(text: str) -> None:
    """Let a mapped task be called so in Airflow's pages."""
    get_current_context()["label"] = text  # type: ignore[typeddict-unknown-key]  # read by its map_index_template


def announce(assets: Iterable[Asset], nights: Iterable[datetime]) -> None:
    """Say on the events of this task's outlets which nights they are about."""
    events = get_current_context()["outlet_events"]
    extra = about(nights)
    for asset in assets:
        events[asset].extra = extra


def announce_through(alias: AssetAlias, asset: Asset, nights: Iterable[datetime]) -> None:
    """Send an event of an asset that is no outlet of this task, through the alias that is one."""
    get_current_context()["outlet_events"][alias].add(asset, extra=about(nights))


def about(nights: Iterable[datetime]) -> dict[str, JsonValue]:
    """What an event says of the nights that it is about, and of the people who asked for it: one who started a run by
    hand may not approve what comes of it."""
    people: list[JsonValue] = [name for name in requesters() if name != NOBODY]
    days: list[JsonValue] = [as_of.isoformat() for as_of in nights]
    return {"as_of": days, **({REQUESTED_BY: people} if people else {})}


def show(path: str, settings: Settings) -> None:
    """Let the task's button "Report" open this file or folder of `settings.reports`."""
    relative = path.removeprefix(str(settings.reports)).lstrip("/")
    _reports[key()] = report_url(relative)


def show_model(name: str) -> None:
    """Let the task's button "Report" open a model's page, until something else is shown."""
    _reports[key()] = f"{PAGES}models/{name}"


def show_portfolio() -> None:
    """Let the task's button "Report" open the page of all models."""
    _reports[key()] = PAGES


class ReportLink(BaseOperatorLink):
    """The button "Report" on a task: what it left for a person to open."""

    name = REPORT_LINK

    def get_link(self, operator: object, *, ti_key: Any) -> str:
        """`ti_key` is the running task instance: Airflow asks once, when the task ends."""
        return _reports.get(TaskKey(ti_key.dag_id, ti_key.run_id, ti_key.task_id), PAGES)


_reports: dict[TaskKey, str] = {}
"""What `show` was told in this process, which is one task's."""


def report_url(path: str) -> str:
    """Where the plugin serves a file of `settings.reports`."""
    return f"{PAGES}reports/{path}"


def linked(output: Any) -> Any:
    """Put the button "Report" on the task behind this output."""
    output.operator.operator_extra_links = (ReportLink(),)
    return output


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
