"""Pages of suites: what one table cannot show takes no page of another, and no index, with it."""

from pathlib import Path

from great_expectations.core import ExpectationSuiteValidationResult

from tiltyard.suites import data_docs
from tiltyard.suites.results import CheckResult
from tiltyard.suites.running import SuiteResult


def result(validation: object) -> SuiteResult:
    check = CheckResult("raw.x", "column_values_to_not_be_null", "size", "critical", False, "3 of 9 rows", "Why <b>.")
    return SuiteResult(validation, (), (check,))  # type: ignore[arg-type]


def test_a_table_that_cannot_be_drawn_is_left_out_and_named(tmp_path: Path) -> None:
    good = ExpectationSuiteValidationResult(
        success=False, results=[], suite_name="x", statistics={}, meta={"run_id": {"run_name": "x", "run_time": ""}}
    )
    pages = {"raw.good": result(good), "raw.odd": result({"results": 2**53})}
    index = data_docs._draw(tmp_path, "freshness", pages, [check for page in pages.values() for check in page.results])
    text = index.read_text()
    assert "raw.odd (cannot be drawn: " in text and "raw.odd.html" not in text
    assert "raw.good.html" in text
    assert "3 of 9 rows" in text and "Why &lt;b&gt;." in text
