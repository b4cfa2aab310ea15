"""The realized plot: drawn whole, from whatever has matured."""

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tiltyard import plots

WEEKS = [date(2016, 3, 14) + timedelta(days=7 * week) for week in range(6)]
ROWS = pd.DataFrame(
    [
        {"night": week, "line": line, "brier": brier, "low": brier - 0.02, "high": brier + 0.02, "n": 900}
        for line, brier in (("promoted line", 0.15), ("never retrained", 0.2), ("safe default", 0.24))
        for week in WEEKS
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
