"""The command line: `tiltyard COMMAND`. The same functions as the DAG tasks, one command a stage.

`entry` is where it begins and where every error ends; `options`, `output` and `narrow` are what the commands share.
Then one module per group of commands, in the order of `tiltyard --help`: `lifecycle`, `looking`, `opening`, `new`,
`data`, `stages`, `portfolio`, `nights`, `operating`, `costs`, `alerts`, `past`, `leakage`, `serving`, `online`.

Every command but `serve` takes `--json`. Errors are one sentence: exit 2 for bad input, 1 for a failed check.

Commands import what they need inside, and only there: DuckDB, SQLAlchemy, MLflow, dbt, Great Expectations and
XGBoost take seconds to import, and whoever asks for `--help` or mistypes an option should not wait for them. At the
head of these modules stands only what is light.
"""

from tiltyard.cli.entry import app, main

__all__ = ["app", "main"]
