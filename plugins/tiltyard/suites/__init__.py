"""One suite of expectations judges one batch: Great Expectations as an engine, and nothing about what is judged.

`expectations` (a suite as it stands in YAML) → `results` (what suites find, and where it is kept) → `gx` (the engine)
→ `offending` (what was seen in words, and where the rows are) → `running` (a suite on a batch) → `page` (for people).
Batches are SQL over the lake, judged where the data lies: through duckdb-engine on a connection of GX's own, to which
the lake is attached. One context and one connection serve a whole process.
"""

from tiltyard.suites.expectations import Expectation, Severity, Suite, load
from tiltyard.suites.gx import Batch, forget, load_gx, no_rows, patch_gx
from tiltyard.suites.page import draw
from tiltyard.suites.results import CheckReport, CheckResult, RowsAt, record
from tiltyard.suites.running import SuiteResult, one_view, run_suite

__all__ = [
    "Batch",
    "CheckReport",
    "CheckResult",
    "Expectation",
    "RowsAt",
    "Severity",
    "Suite",
    "SuiteResult",
    "draw",
    "forget",
    "load",
    "load_gx",
    "no_rows",
    "one_view",
    "patch_gx",
    "record",
    "run_suite",
]
