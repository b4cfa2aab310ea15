"""Evidence of leakage in the data itself: for tables that carry no write times. Pure: a sample in, suspicions out.

Write-time rules (rules.py) prove; this module weighs. A *critical* suspicion is about time: a value that lies after
the prediction, counts up to the outcome, is a part of the outcome's time. A *warning* is statistical: the column
tells the label in a way that honest features seldom do. No rule knows a column's name.

Every interval holds for all columns at once: each is taken at the level ALPHA / (columns judged), Bonferroni's
correction (Dunn 1961, "Multiple comparisons among means", JASA 56), times the number of values that a rule chose
from. Rows of one entity are not independent, so statistics count entities where they count, and widen by the mean
number of rows per entity where they average. What can be judged on no row is `untested`, with the reason.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from tiltyard.leak import aggregates, association, life, outcome_time
from tiltyard.leak.case import Case, Sample
from tiltyard.leak.suspicion import KINDS_OF_EVIDENCE, Suspicion, Untested, Weighed

__all__ = ["Sample", "Suspicion", "Untested", "Weighed", "weigh"]

PLANNED = "It is said to be known ahead; nothing is held against it."
"""Why a column is not judged that is planned."""
_WEIGHERS: Mapping[str, Callable[[Case], Iterator[Suspicion | Untested]]] = {
    "instant_after_prediction": outcome_time.instants,
    "part_of_outcome_time": outcome_time.parts,
    "clock_of_outcome": outcome_time.clocks,
    "grows_until_outcome": outcome_time.growing,
    "future_in_aggregate": aggregates.aggregates,
    "changes_only_after_outcome": life.changes,
    "constant_over_life": life.constants,
    "too_good": association.too_good,
    "default_tracks_label": association.defaults,
    "revised_copy": association.copies,
}
"""Kind → what looks for it, in the order in which they run: the parts of the outcome's time explain no other column."""


def weigh(
    sample: Sample,
    progress: Callable[[str, float | None], None] | None = None,
    kinds: Collection[str] = frozenset(KINDS_OF_EVIDENCE),
) -> Weighed:
    """Judge every feature of the sample. The same sample gives the same result, whatever its columns are called.

    Only `kinds` are looked for: a second log of the same entities needs no other kind weighed again. Nothing is held
    against what is planned, which is `untested` instead; the others are weighed beside it. `progress` is called with
    what is going on and the share of the whole that is done.

    Raises BadInput when a column that is named is not there; everything else that stands in the way is `untested`.
    """
    case = Case(sample)
    untested = [*case.untested, *(Untested(name, "*", PLANNED) for name in case.features if name in sample.planned)]
    suspicions: list[Suspicion] = []
    weighers = [(kind, weigher) for kind, weigher in _WEIGHERS.items() if kind in kinds]
    for place, (kind, weigher) in enumerate(weighers):
        if progress:
            progress(f"evidence: {kind}", place / len(weighers))
        obstacle = case.obstacle(kind)
        outcomes: list[Suspicion | Untested] = [obstacle] if obstacle else list(weigher(case))
        raised = [outcome for outcome in outcomes if isinstance(outcome, Suspicion)]
        raised = [suspicion for suspicion in raised if suspicion.feature not in sample.planned]
        gaps = [outcome for outcome in outcomes if isinstance(outcome, Untested)]
        suspicions += raised
        untested += gaps
        if all(gap.want is None for gap in gaps if gap.kind == kind):
            case.looked_for.add(kind)
    looked_for = tuple(kind for kind in KINDS_OF_EVIDENCE if kind in case.looked_for)
    return Weighed(_ranked(suspicions, case), tuple(dict.fromkeys(untested)), looked_for, tuple(case.notes))


def _ranked(suspicions: list[Suspicion], case: Case) -> tuple[Suspicion, ...]:
    """Critical first, then by kind, then the largest effect first, then as the columns stand."""
    kinds = {kind: place for place, kind in enumerate(KINDS_OF_EVIDENCE)}
    columns = {name: place for place, name in enumerate(case.features)}

    def rank(suspicion: Suspicion) -> tuple[bool, int, float, int]:
        is_warning = suspicion.severity == "warning"
        return is_warning, kinds[suspicion.kind], -abs(suspicion.effect), columns.get(suspicion.feature, 0)

    return tuple(sorted(suspicions, key=rank))
