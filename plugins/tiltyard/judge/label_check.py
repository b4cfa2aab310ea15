"""The newest labels, read from the lake and held against what an older version said of their rows; kept for the gate.

`suspect` says how. What it finds is a *data incident* of the label table, opened in the ledger beside those of its
source: the model is scored and served on, nothing is retrained while it is open, and the gate promotes no version that
has learned from these labels. It ends when the same window, looked at again, is as it should be (what was trained
before that stays held), or by a person's word that these labels are the world (`tiltyard incidents release`). From then
on the windows before are no past to compare with.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from tiltyard import clock
from tiltyard.clock import NIGHT, night_closing
from tiltyard.judge import suspect
from tiltyard.judge.suspect import LabelRows
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import data_incidents, truth
from tiltyard.prepare.data_incidents import SUSPECT, SuspectSpell
from tiltyard.rails import Rails
from tiltyard.records import DataIncidentKey, LabelCheck, LabelCount, Labelled, ShadowSummary, Version
from tiltyard.spec import Spec, portfolio
from tiltyard.tables import LANDED_FILE
from tiltyard.target import Target
from tiltyard.words import listed

MENDED = 20.0
"""So many times likelier than what opens an incident has to be what closes it: one that is on the edge stays."""
COLUMNS = ("version", "score", "slices", "ordinal", "known", "label")
FILES = 3
"""Files of a delivery that are named."""


class Window(NamedTuple):
    """Cohorts, both ends included."""

    first: date
    last: date


def newest(spec: Spec, as_of: datetime) -> Window:
    """The last `drift.window` of cohorts that have matured at `as_of`."""
    last = truth.cutoff(spec, as_of).date()
    return Window(last - (_nights(spec) - 1) * NIGHT, last)


def _nights(spec: Spec) -> int:
    return max(spec.drift.window // NIGHT, 1)


def level(rails: Rails) -> float:
    """Probability that a model's labels are suspect on a night although nothing was done to them."""
    models = len(portfolio(rails.settings)) if rails.settings.models.is_dir() else 1
    nights = load_portfolio(rails.settings.models).budget.nights_between(max(models, 1))
    return suspect.SHARE_OF_BUDGET / nights


def check(
    rails: Rails, spec: Spec, as_of: datetime, window: Window | None = None, since: date | None = None, ease: float = 1
) -> LabelCheck:
    """Look at the labels of a window, by default the newest, as they are known at `as_of`.

    The champion's word counts, or, where it has not said enough yet, that of the first version there was. `since`: the
    first cohort of a past to compare with; `ease`: times the level.
    """
    window = window or newest(spec, as_of)
    first = window.first - suspect.BLOCKS * _nights(spec) * NIGHT
    first = max(first, since) if since else first
    roles = rails.ledger.roles(spec.name, night_closing(as_of))
    versions = [number for number in dict.fromkeys((roles.champion, roles.first)) if number is not None]
    found = LabelCheck(first=window.first, last=window.last)
    if not versions:
        return LabelCheck(**{**vars(found), "untested": suspect.untested(None)})
    rows = truth.matured(rails, spec, as_of, versions, first, COLUMNS)
    rows = rows[rows["ordinal"] <= window.last.toordinal()]
    whys = []
    for version in versions:
        own = rows_of(spec, rails.ledger.bounded(spec).target, rows[rows["version"] == version], window)
        if (why := suspect.untested(own)) is None:
            counted = suspect.counts(own, classes(spec), level(rails) * ease)
            return LabelCheck(
                first=window.first,
                last=window.last,
                version=version,
                looked_at=len(counted),
                suspect=tuple(count for count in counted if count.is_suspect),
                overall=tuple(count for count in counted if count.cell == suspect.ALL),
            )
        whys.append(f"of version {version} there are {why}" if len(own.label) else why)
    return LabelCheck(**{**vars(found), "untested": whys[-1]})


def classes(spec: Spec) -> tuple[str, ...] | None:
    """The names of the labels, in the order of their numbers; None of a number."""
    if spec.target.has_positives:
        return ("no", "yes")
    return spec.label.classes


def rows_of(spec: Spec, target: Target, rows: pd.DataFrame, window: Window) -> LabelRows:
    """Rows of one version, with COLUMNS from truth.matured, as `suspect` takes them. `target`: the spec's, bounded."""
    sliced = truth.with_slices(rows, spec)
    back = window.last.toordinal() - rows["ordinal"].to_numpy(dtype=np.int64)
    return LabelRows(
        block=back // _nights(spec),
        score=target.scores(rows["score"]),
        label=rows["label"].to_numpy(dtype=np.float64),
        known=rows["known"].to_numpy(dtype=np.int64),
        newest=(window.first + _lag(spec)).toordinal(),
        slices={name: sliced[f"slice_{name}"].to_numpy(dtype=object) for name in spec.gate.slices},
    )


def _lag(spec: Spec) -> timedelta:
    """Whole nights from a cohort until it has matured."""
    return -(-spec.label.lag // NIGHT) * NIGHT


# -- incidents ------------------------------------------------------------------------------------


def record(rails: Rails, spec: Spec, as_of: datetime) -> LabelCheck:
    """Look at the newest labels on the night that closes at `as_of`; open and close its incident. Twice is once."""
    night = night_closing(as_of)
    key = DataIncidentKey(spec.label.table, "", SUSPECT + spec.name)
    spells = [
        spell for spell in data_incidents.suspect_spells(rails, spec.label.table, night) if spell.what == key.what
    ]
    found = check(rails, spec, as_of, since=_past_from(spec, spells))
    standing = next((spell for spell in spells if spell.until is None), None)
    if not found.suspect and standing is None:
        return found
    with rails.lake.exclusive(f"labels/{spec.name}"):  # two attempts at a night leave its events once
        if standing is None:
            if not any(spell.since == night for spell in spells):
                reason = _reason(rails, spec, found)
                data_incidents.record_change(rails, spec.source, night, key, "open", reason, night)
        elif standing.since < night:
            again = check(rails, spec, as_of, newest(spec, clock.midnight(standing.since)), ease=MENDED)
            if again.untested is None and not again.suspect:
                why = "the labels of its window are as they should be by now"
                data_incidents.record_change(rails, spec.source, night, key, "closed", why, standing.since)
    return found


def _past_from(spec: Spec, spells: Sequence[SuspectSpell]) -> date | None:
    """The first cohort of what somebody has said is the world now; None where nobody has."""
    released = [spell.since for spell in spells if spell.released]
    return newest(spec, clock.midnight(max(released))).first if released else None


def _reason(rails: Rails, spec: Spec, found: LabelCheck) -> str:
    files = _files(rails, spec, found.suspect)
    brought = f"; that delivery brought {files}" if files else ""
    return (
        f"{found.reason}{brought}. Nothing that learned from them is promoted. Mend them (tiltyard withdraw takes a "
        f"delivery back) and train again, or, where they are the world, tiltyard incidents release {spec.label.table}"
    )


def _files(rails: Rails, spec: Spec, counts: Sequence[LabelCount]) -> str:
    """The files of the model's source that landed in the nights whose deliveries are suspect."""
    nights = [count.cell.removeprefix(suspect.DELIVERY) for count in counts if count.cell.startswith(suspect.DELIVERY)]
    if not nights or not rails.lake.has(LANDED_FILE):
        return ""
    rows = rails.lake.connection.execute(
        f"""
        select distinct table_name || '/' || file as file from lake.{LANDED_FILE}
        where source = $source and list_contains($nights::date[], landed_night) order by file
        """,
        {"source": spec.source, "nights": nights},
    ).fetchall()
    names = [str(name) for (name,) in rows]
    return listed(names[:FILES]) + (f" and {len(names) - FILES} more" if len(names) > FILES else "")


# -- for the gate ---------------------------------------------------------------------------------


def of_version(rails: Rails, spec: Spec, trained: Version, night: date) -> Labelled:
    """What is known on a night of the labels that a version has learned from."""
    learned_until = newest(spec, clock.midnight(trained.night)).last
    released = []
    for spell in data_incidents.suspect_spells(rails, spec.label.table, night):
        first = newest(spec, clock.midnight(spell.since)).first
        if learned_until < first:
            continue
        if spell.released:
            released.append(spell.released)
            continue
        if spell.until is not None and spell.until <= trained.night:
            continue
        ends = "" if spell.until is None else f" They are mended since the night of {spell.until}: train again."
        return Labelled(
            "suspect", f"It learned from labels that are suspect since {spell.since}: {spell.reason}.{ends}"
        )
    if released:
        return Labelled("sound", f"Labels that it learned from were suspect, and {released[-1].rstrip('.')}.")
    run = rails.ledger.stage_run(ShadowSummary, spec.name, trained.night)
    found = run.summary.labels if run else None
    if found is None:
        return Labelled("untested", "The labels that it learned from are untested: no version had spoken before them.")
    if found.untested:
        return Labelled("untested", f"The newest labels that it learned from are untested: {found.untested}.")
    return Labelled(
        "sound",
        f"The labels of {found.first} to {found.last} are no others than version {found.version} leads to expect, by "
        f"{found.looked_at} counts.",
    )
