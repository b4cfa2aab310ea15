"""The plots of realized performance and of label arrival: drawn whole, from whatever there is."""

import os
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiltyard.judge import runoff
from tiltyard.judge.runoff import Arrivals
from tiltyard.pages import picture, plots

WEEKS = [date(2016, 3, 14) + timedelta(days=7 * week) for week in range(6)]
ROWS = pd.DataFrame(
    [
        {"night": week, "line": line, "loss": brier, "low": brier - 0.02, "high": brier + 0.02, "n": 900}
        for line, brier in (("promoted line", 0.15), ("never retrained", 0.2), ("safe default", 0.24))
        for week in WEEKS
    ]
    + [
        {
            "night": WEEKS[-1] + timedelta(days=7),
            "line": plots.ESTIMATED,
            "loss": 0.16,
            "low": 0.1,
            "high": 0.2,
            "n": 9,
        }
    ]
)


@pytest.mark.parametrize("name", ["realized.png", "realized.svg"])
def test_the_same_rows_give_the_same_picture(tmp_path: Path, name: str) -> None:
    first = plots.realized(ROWS, tmp_path / "reports" / name, promotions=WEEKS[1:3], title="sla_breach").read_bytes()
    again = plots.realized(ROWS, tmp_path / "reports" / name, promotions=WEEKS[1:3], title="sla_breach").read_bytes()
    assert first == again
    assert [path.name for path in (tmp_path / "reports").iterdir()] == [name]


def test_the_lines_and_marks_are_named(tmp_path: Path) -> None:
    text = plots.realized(ROWS, tmp_path / "realized.svg", promotions=WEEKS[1:2], title="sla_breach").read_text()
    for label in (*plots.LINES, "promotion", "sla_breach", "lower is better"):
        assert f">{label}" in text or label in text


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS.iloc[:0], id="nothing matured"),
        pytest.param(ROWS[ROWS["night"] == WEEKS[0]], id="one week"),
        pytest.param(ROWS[(ROWS["night"] != WEEKS[2])], id="a week missing"),
        pytest.param(ROWS.assign(low=None, high=None), id="no intervals"),
        pytest.param(ROWS[ROWS["line"] == "promoted line"], id="one line"),
    ],
)
def test_thin_evidence_is_drawn_all_the_same(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert plots.realized(rows, tmp_path / "realized.png").stat().st_size > 5_000


def test_a_line_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are not lines"):
        plots.realized(ROWS.assign(line="promotd"), tmp_path / "realized.png")


@pytest.mark.parametrize("positives", [0, 3])
def test_label_arrival_is_drawn_by_class_with_every_cohort(tmp_path: Path, positives: int) -> None:
    """Four cohorts of ten rows; a class that has not come yet has no line."""
    came = np.tril(np.ones((4, 4), dtype=np.int64))[::-1]
    arrivals = Arrivals(WEEKS[0], WEEKS[0] + timedelta(days=3), np.full(4, 10), came * positives, came, 2)
    curve = runoff.curve(arrivals)
    shares = plots.ArrivalCurve(curve.labels, curve.positives, curve.negatives)
    path = tmp_path / "arrival.svg"
    plots.arrival(arrivals.shares, shares, path, matures=2, night=arrivals.night, title="sla_breach")
    text = path.read_text()
    for label in ("sla_breach: how the truth arrives", "all rows", "negatives, of those", "cohort matures"):
        assert label in text
    assert ("positives, of those" in text) == bool(positives)


def test_two_processes_that_draw_the_same_picture_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Path] = []

    class Figure:
        def savefig(self, part: Path, **_: object) -> None:
            parts.append(part)
            if len(parts) == 1:
                monkeypatch.setattr(os, "getpid", lambda: 1)  # the other process draws meanwhile
                picture.save(Figure(), path)
            part.write_bytes(b"picture")

    path = tmp_path / "picture.svg"
    picture.save(Figure(), path)
    assert len(set(parts)) == 2
    assert list(tmp_path.iterdir()) == [path]
