"""Evidence of leakage in the data itself: for tables that carry no write times. Pure: a sample in, findings out.

Write-time rules (leakage.py) prove; this module weighs. A *critical* finding is about time: a value that lies after
the prediction, counts up to the outcome, is a part of the outcome's time. A *warning* is statistical: the column
tells the label in a way that honest features seldom do. No rule knows a column's name.

Every interval holds for all columns at once: each is taken at the level ALPHA / (columns judged), Bonferroni's
correction (Dunn 1961, "Multiple comparisons among means", JASA 56), times the number of values that a rule chose
from. Rows of one entity are not independent, so statistics count entities where they count, and widen by the mean
number of rows per entity where they average. What can be judged on no row is `untested`, with the reason.
"""

from collections.abc import Callable, Collection, Iterator

from tiltyard.leak import association, life, outcome_time
from tiltyard.leak.case import KINDS, Case, Finding, Sample, Severity, Untested, Weighed

__all__ = ["KINDS", "Finding", "Sample", "Severity", "Untested", "Weighed", "weigh"]

_Weigher = Callable[[Case], Iterator[Finding | Untested]]
_WEIGHERS: tuple[tuple[str, _Weigher], ...] = (
    ("instant_after_prediction", outcome_time.instants),
    ("part_of_outcome_time", outcome_time.parts),
    ("clock_of_outcome", outcome_time.clocks),
    ("grows_until_outcome", outcome_time.growing),
    ("future_in_aggregate", life.aggregates),
    ("changes_only_after_outcome", life.changes),
    ("constant_over_life", life.constants),
    ("too_good", association.too_good),
    ("default_tracks_label", association.defaults),
    ("revised_copy", association.copies),
)


def weigh(
    sample: Sample,
    progress: Callable[[str, float | None], None] | None = None,
    kinds: Collection[str] = frozenset(KINDS),
) -> Weighed:
    """Judge every feature of the sample. The same sample gives the same findings, whatever its columns are called.

    Only `kinds` are looked for: a second log of the same entities needs no other kind weighed again. Raises BadInput
    when a column that is named is not there; everything else that stands in the way is `untested`.
    """
    case = Case(sample)
    untested = list(case.untested)
    findings: list[Finding] = []
    weighers = [(kind, weigher) for kind, weigher in _WEIGHERS if kind in kinds]
    for done, (kind, weigher) in enumerate(weighers):
        if progress:
            progress(f"evidence: {kind}", done / len(weighers))
        obstacle = case.obstacle(kind)
        outcomes = [obstacle] if obstacle else list(weigher(case))
        suspicions = [outcome for outcome in outcomes if isinstance(outcome, Finding)]
        gaps = [outcome for outcome in outcomes if isinstance(outcome, Untested)]
        findings += suspicions
        untested += gaps
        if suspicions or all(gap.want is None for gap in gaps):
            case.looked_for.add(kind)
    looked_for = tuple(kind for kind in KINDS if kind in case.looked_for)
    return Weighed(_ranked(findings, case), tuple(dict.fromkeys(untested)), looked_for)


def _ranked(findings: list[Finding], case: "Case") -> tuple[Finding, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    columns = {name: place for place, name in enumerate(case.features)}
    key = {"critical": 0, "warning": 1}
    return tuple(
        sorted(findings, key=lambda f: (key[f.severity], order[f.kind], -abs(f.effect), columns.get(f.feature, 0)))
    )
