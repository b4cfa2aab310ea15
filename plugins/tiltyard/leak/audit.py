"""The auditor: does a table of anybody's tell what could not have been known at prediction time?

It needs a file and the names of a few columns; no spec, no lake, no server. Two kinds of evidence, kept apart:

- **Write times**, where the file carries them: the rules of rules.py, counted exactly over all rows, in one scan.
- **The data itself**: evidence.py on a sample of whole entities, drawn by hash, so that it is the same for the same
  file.

The verdict is `fail` when something is critical, `warn`, `pass`, or `untestable`. Silence about what could not be
tested would look like a pass, so the reason counts the kinds of leakage that were looked for and says what to give
for the others.
"""

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import duckdb

from tiltyard import arguments
from tiltyard.errors import BadInput
from tiltyard.leak import drawing, evidence, tabular, write_times
from tiltyard.leak.coverage import Coverage, NotLookedFor, covered, given_by
from tiltyard.leak.engine import Progress, connect, is_readable
from tiltyard.leak.label import AuditedLabel, read_label
from tiltyard.leak.roles import ARGUMENTS, ColumnRoles, roles_of
from tiltyard.leak.rules import is_instant
from tiltyard.leak.suspicion import KINDS, Cell, LeakVerdict, Severity, Suspicion, Untested, Want
from tiltyard.records import Record
from tiltyard.words import counted, listed

UNTESTED_LINES = 8
"""So many lines of what could not be tested are printed; the page has all of them."""


@dataclass(frozen=True, repr=False)
class Audit:
    """What is held against a table's columns, what could not be tested, and on what. `print` shows it."""

    path: Path
    verdict: LeakVerdict
    reason: str
    """The reason for the verdict, how many kinds were looked for, and what to give for the others."""
    rows: int
    """Rows of the file."""
    suspicions: tuple[Suspicion, ...]
    """Ranked: critical first, exact counts before statistics."""
    untested: tuple[Untested, ...]
    coverage: Coverage
    """The kinds of leakage that were looked for, of all that are known, and what to give for the others."""
    notes: tuple[str, ...]
    """How the file was read, where that was a decision."""
    features: tuple[str, ...]
    label: AuditedLabel
    sampled: int
    """Rows that the statistics looked at."""
    exact: str
    """What was counted over all rows, in a sentence."""

    def __repr__(self) -> str:
        suspicions = counted(len(self.suspicions), "suspicion")
        return f"<Audit of {self.path.name}: {self.verdict}, {suspicions}, {counted(self.rows, 'row')}>"

    def __str__(self) -> str:
        """What the command prints, but for its colours."""
        lines = [f"{self.verdict}: {self.reason}"]
        lines += [
            f"{suspicion.severity}: {suspicion.feature}, {suspicion.kind}. {suspicion.evidence}"
            for suspicion in self.suspicions
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"untested: {gap}" for gap in self.untested[:UNTESTED_LINES]]
        more = len(self.untested) - UNTESTED_LINES
        lines += [f"untested: … and {more} more"] if more > 0 else []
        return "\n".join([*lines, f"{self.size}."])

    @property
    def size(self) -> str:
        """How much was judged, in words."""
        return f"{counted(self.rows, 'row')}, {counted(len(self.features), 'feature')}"

    def document(self, report: Path | None = None) -> "AuditDocument":
        """The audit as the command prints it with `--json`; `report`: where its page was written."""
        return AuditDocument(
            verdict=self.verdict,
            rows=self.rows,
            findings=tuple(
                SuspicionEntry(
                    feature=suspicion.feature,
                    severity=suspicion.severity,
                    kind=suspicion.kind,
                    effect=suspicion.effect,
                    interval=suspicion.interval,
                    evidence=suspicion.evidence,
                    examples=tuple(dict(example) for example in suspicion.examples),
                )
                for suspicion in self.suspicions
            ),
            untested=tuple(
                GapEntry(feature=gap.feature, kind=gap.kind, why=gap.why, want=gap.want) for gap in self.untested
            ),
            reason=self.reason,
            looked_for=self.coverage.looked_for,
            not_looked_for=self.coverage.not_looked_for,
            notes=self.notes,
            features=len(self.features),
            sampled_rows=self.sampled,
            label=LabelEntry(column=self.label.column, kind=self.label.kind, positive=self.label.positive or None),
            file=str(self.path),
            report=str(report) if report else None,
        )


# -- what `--json` prints ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SuspicionEntry(Record):
    """One kind of leakage that a column is suspected of."""

    feature: str
    severity: Severity
    """critical: the evidence is about time and leaves no doubt; warning: it is statistical, or leaves one."""
    kind: str
    """Name of the kind of leakage."""
    effect: float
    """Size of the effect, in the unit that `evidence` names."""
    interval: tuple[float, float] | None
    """Lower and upper end of the effect, holding for all features at once; null for exact counts."""
    evidence: str
    """One sentence with the numbers."""
    examples: tuple[dict[str, Cell], ...]
    """At most five rows to look up: title or column → value."""


@dataclass(frozen=True, kw_only=True)
class GapEntry(Record):
    """What could not be judged, and why."""

    feature: str
    """A column, or '*' for all."""
    kind: str
    """Name of the kind of leakage, or '*' for all."""
    why: str
    """A sentence."""
    want: Want | None
    """What the kind could not be looked for without; null where some rows, columns or pairs were left out of it."""


@dataclass(frozen=True, kw_only=True)
class LabelEntry(Record):
    """How the label was read."""

    column: str
    kind: Literal["binary", "number"]
    positive: str | None
    """The value that counts as 1; null for a number."""


@dataclass(frozen=True, kw_only=True)
class AuditDocument(Record):
    """What `tiltyard leakage audit --json` prints."""

    verdict: LeakVerdict
    rows: int
    """Rows of the file."""
    findings: tuple[SuspicionEntry, ...]
    """What is held against the columns, ranked: critical first, exact counts before statistics."""
    untested: tuple[GapEntry, ...]
    reason: str
    """The reason for the verdict, how many kinds were looked for, and what to give for the others."""
    looked_for: tuple[str, ...]
    """Kinds of leakage that were looked for."""
    not_looked_for: tuple[NotLookedFor, ...]
    """The other kinds, with the reason and what to give for each."""
    notes: tuple[str, ...]
    """How the file was read, where that was a decision."""
    features: int
    """Number of columns that were judged."""
    sampled_rows: int
    """Rows that the statistics looked at."""
    label: LabelEntry
    file: str
    """Path of the file."""
    report: str | None
    """Path of the page; null when none was written."""


# -- the audit --------------------------------------------------------------------------------


def audit(
    path: Path,
    *,
    label: str,
    prediction_time: str,
    entity: str | None = None,
    label_time: str | None = None,
    available_at: Mapping[str, str] | None = None,
    planned: Iterable[str] = (),
    ignore: Iterable[str] = (),
    history: Path | None = None,
    history_as_of: str | None = None,
    progress: Progress | None = None,
    threads: int = 2,
    memory: str = "2GB",
    words: Mapping[str, str] = ARGUMENTS,
) -> Audit:
    """Judge a Parquet or CSV file of any size within `memory` for the engine and a sample beside it.

    `available_at`: feature → the column that says since when its value was known; the key `*` stands for every
    feature that has none of its own. `planned`: columns that are known ahead. `history`: an event or
    version log of the same entities, with `history_as_of` the time of each row. `progress` is called with what is
    going on and the share of the whole that is done. `words`: what the arguments are called by whoever reads the
    sentences (roles.py).

    Raises BadInput for whatever cannot be judged at all.
    """
    for argument, file in (("path", path), ("history", history)):
        if not isinstance(file, Path | str) and (file is not None or argument == "path"):
            raise BadInput(
                f"{argument} is a Parquet or CSV file, not {arguments.kind(file)}; audit_frame takes frames."
            )
    roles = roles_of(
        label, prediction_time, entity, label_time, available_at, planned, ignore, history_as_of, words=words
    )
    roles.check(history)
    with tempfile.TemporaryDirectory(prefix="tiltyard-audit-") as name:
        folder = Path(name)
        with closing(connect(folder, threads=threads, memory=memory)) as connection:
            try:
                return _audit(
                    connection, Path(path), folder, roles, Path(history) if history else None, progress or _silently
                )
            except (
                duckdb.IOException,
                duckdb.DataError,
                duckdb.InvalidInputException,
                duckdb.OutOfMemoryException,
            ) as error:
                raise BadInput(_what_stopped(Path(path), folder, memory, str(error))) from None


def _silently(_step: str, _share: float) -> None:
    """Progress that nobody watches."""


def _audit(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    folder: Path,
    roles: ColumnRoles,
    history: Path | None,
    progress: Progress,
) -> Audit:
    progress("reading the file", 0.02)
    moment = roles.prediction_time
    table = tabular.table(connection, path, folder, times=roles.times, columns=roles.columns, moment=moment)
    features = roles.features(table.columns)
    if not features:
        raise BadInput(f"{path.name} has no column left to judge beside those that have another part.")
    if roles.entity and not is_readable(table.columns[roles.entity]):
        kind = table.columns[roles.entity].lower()[:40]
        raise BadInput(
            f"{roles.words['entity']}: column '{roles.entity}' is {kind}; name one of numbers or text, or a time."
        )
    label, notes = read_label(connection, table, roles.label, roles.words["label"])
    unread = [
        Untested(feature, "*", f"It holds {table.columns[feature].lower()[:40]}, which nothing here can judge.")
        for feature in features
        if not is_readable(table.columns[feature])
    ]
    readable = tuple(feature for feature in features if is_readable(table.columns[feature]))
    progress("rules on write times", 0.2)
    exact, gaps = write_times.check(connection, table, roles, readable, progress)
    early = write_times.outcome_first(connection, table, roles)
    progress("drawing the sample", 0.55)
    sample, sample_notes = drawing.draw(connection, table, roles, readable, label)
    log_notes: list[str] = []
    if history:
        sample, log_notes = drawing.with_log(connection, history, folder, roles, sample)
    weighed = evidence.weigh(sample, lambda step, share: progress(step, 0.7 + 0.3 * (share or 0.0)))
    progress("done", 1.0)
    instants = {name for name in readable if is_instant(table.columns[name])}
    ranked = _ranked(exact, weighed.suspicions, instants)
    suspicions = tuple(_no_surer(ranked, table.guessed, roles))
    untested = (*unread, *gaps, *weighed.untested)
    verdict, reason = _verdict(suspicions, weighed.idle)
    coverage = covered(tuple(KINDS), weighed.looked_for, untested, given_by(roles), roles.words)
    return Audit(
        path=path,
        verdict=verdict,
        reason=f"{reason} {coverage.sentence}",
        rows=table.rows,
        suspicions=suspicions,
        untested=untested,
        coverage=coverage,
        notes=(*table.notes, *notes, *early, *sample_notes, *log_notes, *weighed.notes),
        features=features,
        label=label,
        sampled=len(sample.frame),
        exact=write_times.in_words(roles, readable, table),
    )


def _ranked(exact: Sequence[Suspicion], statistical: Sequence[Suspicion], instants: Collection[str]) -> list[Suspicion]:
    """Critical first, exact counts before statistics; what the rules counted over all rows is not shown twice."""
    by_size = sorted(exact, key=lambda suspicion: (-suspicion.effect, suspicion.feature))
    rest = [
        suspicion
        for suspicion in statistical
        if suspicion.kind != "instant_after_prediction" or suspicion.feature not in instants
    ]
    return sorted([*by_size, *rest], key=lambda suspicion: suspicion.severity != "critical")


def _no_surer(suspicions: Sequence[Suspicion], guessed: Collection[str], roles: ColumnRoles) -> list[Suspicion]:
    """The same, none surer than how its times were read: what rests on a guess is a warning, and says so."""
    since = roles.availability(suspicion.feature for suspicion in suspicions)
    capped = []
    for suspicion in suspicions:
        parts = (suspicion.feature, since.get(suspicion.feature), roles.prediction_time, roles.label_time)
        unsure = [part for part in parts if part in guessed]
        if suspicion.severity == "critical" and unsure:
            said = (
                f"{suspicion.evidence} It is no more than a warning: how the times of {unsure[0]} are meant is a guess."
            )
            suspicion = replace(suspicion, severity="warning", evidence=said)
        capped.append(suspicion)
    return sorted(capped, key=lambda suspicion: suspicion.severity != "critical")


def _verdict(suspicions: Sequence[Suspicion], idle: str) -> tuple[LeakVerdict, str]:
    """The verdict and its reason in one sentence. `idle`: why no statistic could be tried; '' when one could."""
    critical = [suspicion for suspicion in suspicions if suspicion.severity == "critical"]
    if critical:
        columns = list(dict.fromkeys(suspicion.feature for suspicion in critical))
        verb = "tells" if len(columns) == 1 else "tell"
        return "fail", f"{listed(columns)} {verb} what could not have been known at the prediction time."
    if idle:
        return "untestable", f"The data itself could not be tested: {idle}"
    if suspicions:
        columns = list(dict.fromkeys(suspicion.feature for suspicion in suspicions))
        return "warn", f"Nothing is certain, but somebody should have a look at {listed(columns)}."
    return "pass", "Nothing of what was looked for tells what could not have been known at the prediction time."


def _what_stopped(path: Path, folder: Path, memory: str, error: str) -> str:
    first = error.splitlines()[0].rstrip(".")
    if "No space left" in error or "max_temp_directory_size" in error:
        return f"There is no room in {folder.parent} to judge {path}; set TMPDIR to a folder with more."
    if "Out of Memory" in error:
        return f"The engine's memory, {memory}, is too little to judge {path}; give it more, or a smaller table."
    return f"{path} cannot be read to its end: {first}."
