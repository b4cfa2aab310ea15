"""A task's log: sentences with figures, and nothing of what libraries say of themselves."""

import subprocess
import sys
from datetime import date

import pytest

from tiltyard.edge import log_lines
from tiltyard.records import (
    DriftSummary,
    FallbackAuditSummary,
    LabelCounts,
    PortfolioNight,
    PromotionSummary,
    Record,
    ShadowSummary,
    TrainingSummary,
)

TALK = """
import logging
logging.basicConfig(level=logging.INFO)
from tiltyard.edge import log_lines
if {is_quiet}:
    log_lines.quiet()
import great_expectations
"""


@pytest.mark.parametrize("is_quiet", [True, False])
def test_great_expectations_tells_hundreds_of_lines_unless_it_is_told_not_to(is_quiet: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TALK.format(is_quiet=is_quiet)], capture_output=True, text=True, check=True, timeout=120
    )
    lines = [line for line in done.stderr.splitlines() if "great_expectations" in line]
    assert (lines == []) if is_quiet else len(lines) > 100


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (
            ShadowSummary(rows=1204, tiers={"champion": 1200, "safe_default": 4}, counts=LabelCounts(matured=88)),
            "1,204 rows scored, answered by champion 1,200, safe_default 4; 88 predictions have matured.",
        ),
        (
            PromotionSummary(challenger=4, verdict="promote", reasons=("better.",), needs_approval=True),
            "version 4: promote, and a person is asked: better.",
        ),
        (PromotionSummary(challenger=4, verdict="promote", promoted=4), "version 4: promote, version 4 is promoted."),
        (DriftSummary(verdict="steady", reasons=("evidence 3 of 100",)), "steady: evidence 3 of 100."),
        (TrainingSummary(trained=True, version=2, rows=1), "version 2 trained on 1 row."),
        (TrainingSummary(reason="too few rows"), "no version: too few rows"),
        (FallbackAuditSummary(answers=200, share=0.755), "76% of 200 answers by the safe default."),
        (
            PortfolioNight(night=date(2025, 3, 4), decisions={"no_alarm": 7}, granted={"churn": ("drift",)}),
            "7 no alarm; may retrain: churn.",
        ),
    ],
)  # fmt: skip
def test_what_a_night_came_to_is_one_sentence(record: Record, sentence: str) -> None:
    assert log_lines.of_night(record) == sentence
