"""Of several challengers one is acted on, and the form, the pages and `status` name the same one."""

from datetime import date

import pytest

from tiltyard.judge.best import best_of
from tiltyard.records import Decision, EvidenceRecord


def decision(challenger: int, verdict: str, low: float | None, matured: int, day: int = 9) -> Decision:
    evidence = EvidenceRecord(model="m", night=date(2016, 3, day), low=low, matured=matured)
    return Decision(
        model="m", night=date(2016, 3, day), challenger=challenger, champion=None, verdict=verdict,
        reasons=(verdict,), evidence=evidence,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("decisions", "best"),
    [
        ([decision(2, "promote", 0.01, 900), decision(3, "promote", 0.04, 300)], 3),  # not the one with more evidence
        ([decision(2, "hold", 0.09, 900), decision(3, "promote", 0.01, 300)], 3),
        ([decision(2, "hold", 0.09, 900), decision(3, "hold", 0.01, 300)], 3),  # the newest one, as the gate says it
        ([decision(2, "promote", 0.01, 900), decision(3, "promote", 0.01, 300)], 3),
        ([decision(9, "promote", 0.9, 900, day=8), decision(2, "hold", None, 0)], 2),  # of the newest night
    ],
)
def test_one_rule_says_which(decisions: list[Decision], best: int) -> None:
    tonight = [one for one in decisions if one.night == decisions[-1].night]
    assert best_of(tonight).challenger == best
    assert best_of([]) is None
