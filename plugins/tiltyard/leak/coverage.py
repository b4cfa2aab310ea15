"""Which kinds of leakage could be looked for in a table, and what somebody has to give for the others. Pure.

A table without label times, without a log and with one row per entity hides half of the kinds. Silence about those
would read as a pass, so the headline of an audit counts them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tiltyard.leak.suspicion import Untested, Want
from tiltyard.records import Record

GIVE: Mapping[Want, str] = {
    "prediction_time": "a prediction time that is filled in (--prediction-time)",
    "label_time": "--label-time",
    "available_at": "--available-at",
    "entity": "--entity",
    "history": "--history with --as-of-column",
    "rows_per_entity": "several rows per entity",
    "outcomes": "more outcomes that come at a time of their own",
    "rows": "more labelled rows of both classes",
}
"""What is lacking → what to give, in the order in which it is easiest to come by."""


@dataclass(frozen=True, kw_only=True)
class NotLookedFor(Record):
    """A kind of leakage that could not be looked for."""

    kind: str
    """Name of the kind."""
    why: str
    """A sentence."""
    give: str
    """What would let it be looked for: an option of the command, or other rows."""


@dataclass(frozen=True)
class Coverage:
    """The kinds of leakage that were looked for in a table, and the others."""

    looked_for: tuple[str, ...]
    """Keys of `suspicion.KINDS`."""
    not_looked_for: tuple[NotLookedFor, ...]
    """The others."""

    @property
    def sentence(self) -> str:
        """How many kinds were looked for, and what to give for the others."""
        whole = len(self.looked_for) + len(self.not_looked_for)
        if not self.not_looked_for:
            return f"All {whole} kinds of leakage were looked for."
        kinds: dict[str, list[str]] = {give: [] for give in GIVE.values()}
        for gap in self.not_looked_for:
            kinds.setdefault(gap.give, []).append(gap.kind.replace("_", " "))
        needs = [f"{give} for {_listed(names)}" for give, names in kinds.items() if names]
        return f"Of {whole} kinds of leakage {len(self.looked_for)} were looked for; give {'; '.join(needs)}."


def covered(kinds: Sequence[str], looked_for: Iterable[str], untested: Sequence[Untested]) -> Coverage:
    """What was looked for of `kinds`; the reason for each of the others stands in `untested`."""
    done = set(looked_for)
    gaps = {gap.kind: gap for gap in reversed(untested) if gap.want is not None and gap.kind not in done}
    missing = [(kind, gaps[kind]) for kind in kinds if kind in gaps]
    return Coverage(
        looked_for=tuple(kind for kind in kinds if kind not in gaps),
        not_looked_for=tuple(
            NotLookedFor(kind=kind, why=gap.why, give=GIVE[gap.want]) for kind, gap in missing if gap.want
        ),
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
