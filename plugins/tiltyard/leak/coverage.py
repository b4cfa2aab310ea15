"""Which kinds of leakage could be looked for in a table, and what somebody has to give for the others. Pure.

A table without label times, without a log and with one row per entity hides half of the kinds. Silence about those
would read as a pass, so the reason of an audit counts them. A kind counts only when it was looked for in every way
there is: an aggregate over the future that shows without a log says nothing of those that need one. What to give is
named all at once, since nobody wants to learn of the second option from the second run.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tiltyard.leak.roles import ARGUMENTS, ColumnRoles
from tiltyard.leak.suspicion import Untested, Want
from tiltyard.records import Record

GIVE: Mapping[Want, str] = {
    "prediction_time": "a prediction time that is filled in ({prediction_time})",
    "label_time": "{label_time}",
    "available_at": "{available_at}",
    "entity": "{entity}",
    "history": "{history} with {history_as_of}",
    "rows_per_entity": "several rows per entity",
    "outcomes": "more outcomes that come at a time of their own",
    "rows": "more labelled rows of both classes",
}
"""What is lacking → what to give, in the order in which it is easiest to come by."""
NEEDS: Mapping[str, tuple[Want, ...]] = {
    "point_in_time": ("available_at",),
    "used_without_available_at": ("available_at",),
    "later_than_available_at": ("available_at",),
    "repeated_prediction": ("entity",),
    "part_of_outcome_time": ("label_time",),
    "grows_until_outcome": ("label_time",),
    "future_in_aggregate": ("entity", "history"),
    "changes_only_after_outcome": ("label_time", "entity", "history"),
    "constant_over_life": ("entity", "rows_per_entity"),
}
"""Kind → what it is looked for with beside the label and the prediction time, in all its ways."""


@dataclass(frozen=True, kw_only=True)
class NotLookedFor(Record):
    """A kind of leakage that could not be looked for, or not in every way there is."""

    kind: str
    """Name of the kind."""
    why: str
    """A sentence."""
    give: str
    """What would let it be looked for: options of the command (arguments, for a caller from Python), or other rows."""


@dataclass(frozen=True)
class Coverage:
    """The kinds of leakage that were looked for in a table, and the others."""

    looked_for: tuple[str, ...]
    """Keys of `suspicion.KINDS`."""
    not_looked_for: tuple[NotLookedFor, ...]
    """The others."""
    wanted: Mapping[str, tuple[str, ...]]
    """What to give → the kinds that lack it."""

    @property
    def sentence(self) -> str:
        """How many kinds were looked for, and what to give for the others."""
        whole, number = len(self.looked_for) + len(self.not_looked_for), len(self.looked_for)
        if not self.not_looked_for:
            return f"All {whole} kinds of leakage were looked for."
        needs = [
            f"{give} for {_listed([kind.replace('_', ' ') for kind in kinds])}" for give, kinds in self.wanted.items()
        ]
        verb = "was" if number == 1 else "were"
        return f"Of {whole} kinds of leakage {number} {verb} looked for; give {'; '.join(needs)}."


def covered(
    kinds: Sequence[str],
    looked_for: Iterable[str],
    untested: Sequence[Untested],
    given: Collection[Want],
    words: Mapping[str, str] = ARGUMENTS,
) -> Coverage:
    """What was looked for of `kinds`; the reason for each of the others stands in `untested`.

    `given`: what somebody has named already; `words`: what each role is called by whoever reads the sentence.
    """
    done = set(looked_for)
    gaps: dict[str, list[Untested]] = {}
    for gap in untested:
        if gap.want is not None and gap.kind not in done:
            gaps.setdefault(gap.kind, []).append(gap)
    wants: dict[str, list[Want]] = {}
    for kind in (kind for kind in kinds if kind in gaps):
        needs = {gap.want for gap in gaps[kind]} | {want for want in NEEDS.get(kind, ()) if _is_open(want, given)}
        wants[kind] = [want for want in GIVE if want in needs]
    titles = {want: text.format_map(words) for want, text in GIVE.items()}
    return Coverage(
        looked_for=tuple(kind for kind in kinds if kind not in wants),
        not_looked_for=tuple(
            NotLookedFor(kind=kind, why=gaps[kind][0].why, give=_listed([titles[want] for want in lacking]))
            for kind, lacking in wants.items()
        ),
        wanted={
            title: needy
            for want, title in titles.items()
            if (needy := tuple(kind for kind, lacking in wants.items() if want in lacking))
        },
    )


def given_by(roles: ColumnRoles) -> frozenset[Want]:
    """What the roles name."""
    named: dict[Want, object] = {
        "prediction_time": roles.prediction_time,
        "label_time": roles.label_time,
        "available_at": roles.available_at,
        "entity": roles.entity,
        "history": roles.history_as_of,
    }
    return frozenset(want for want, value in named.items() if value)


def _is_open(want: Want, given: Collection[Want]) -> bool:
    """Somebody has yet to name it; how many rows an entity has shows only when there is one."""
    return want not in given and (want != "rows_per_entity" or "entity" not in given)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
