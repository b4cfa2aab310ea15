"""The lake's own tables, `ops.*`: what the project writes about its work. Each one's name and columns stand here once.

SQL names a table by its constant: `{{{PREDICTION}}}` in an f-string for `lake.query`, which reads it at an `as_of`, and
`{stored(PREDICTION)}` for all rows. Columns of timestamps are instants in UTC; `available_at` is the as_of of the night
that wrote the row, so that a past night reads what was known then. A column is never taken away: `lake.ensure` adds
what an older lake lacks, as NULL in the rows that are there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tiltyard.target import FIGURES


@dataclass(frozen=True)
class Table:
    """A table of the lake, as whoever writes it declares it."""

    name: str
    """The name, `schema.table`."""
    columns: Mapping[str, str] = field(hash=False)
    """Column → DuckDB type, in the order of the table."""

    def __str__(self) -> str:
        return self.name


# -- what was delivered ---------------------------------------------------------------------------

INGEST_RUN: Final = Table(
    "ops.ingest_run",
    {
        "source": "varchar",
        "available_at": "timestamptz",
        "ingested_at": "timestamptz",
    },
)
"""One row per source and night that looked for deliveries, the first time it did, whether it found any: what it could
have landed and did not was not there."""

LANDED_FILE: Final = Table(
    "ops.landed_file",
    {
        "source": "varchar",
        "table_name": "varchar",
        "file": "varchar",
        "sha256": "varchar",
        "rows": "bigint",
        "repeated": "bigint",
        "corrections": "bigint",
        "bytes": "bigint",
        "modified_ns": "bigint",
        "landed_night": "date",
        "available_at": "timestamptz",
        "ingested_at": "timestamptz",
    },
)
"""One row per file that was landed. `modified_ns`: when the file was last written, in nanoseconds since 1970.
`repeated`, `corrections`: of a table whose contract names a key, the rows that were dropped since all of them came
before, and those that landed beside another of their key."""

BUILT: Final = Table(
    "ops.built",
    {
        "table_name": "varchar",
        "digest": "varchar",
        "available_at": "timestamptz",
    },
)
"""One row per table that dbt makes: the digest of the text that built it, and one per source, `source:NAME`, with that
of the whole dbt project. Empty where the last build did not come to its end (see `prepare/rebuilding.py`)."""

COLUMN_PROFILE: Final = Table(
    "ops.column_profile",
    {
        "night": "date",
        "table_name": "varchar",
        "rows": "bigint",
        "content": "varchar",
        "column_name": "varchar",
        "nulls": "bigint",
        "zeros": "bigint",
        "kinds": "bigint",
        "is_constant": "boolean",
        "categories": "varchar",
        "broken": "varchar",
        "available_at": "timestamptz",
        "along": "varchar",
    },
)
"""One row per night, raw table and column, and one with an empty column name for the delivery as a whole. `nulls`,
`zeros` and `kinds` (distinct values, about) count among the night's `rows`; `content` is a digest of all of them;
`categories` is a JSON object, value → rows, of a column with few values; `broken` the rules that the column breaks,
separated by spaces. `along` is the planned column whose day had ended, where the rows are those of that day, whenever
they came; NULL where they are those that came."""

SPREADS: Final = ("claimed", "observed")
POINTS: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
"""Ending of a column of ops.feature_latency → the quantile that it holds."""

FEATURE_LATENCY: Final = Table(
    "ops.feature_latency",
    {
        "night": "date",
        "table_name": "varchar",
        "kind": "varchar",
        "rows": "bigint",
        "observed_rows": "bigint",
        "untimed": "bigint",
        **{f"{spread}_{point}_s": "double" for spread in SPREADS for point in POINTS},
        "missed": "varchar",
        "promised_p99_s": "double",
        "available_at": "timestamptz",
    },
)
"""One row per night and table: how many seconds its rows took from event to knowledge, by their own claim and by what
was observed. `untimed` counts the rows without one of the two times."""

CHECK_RESULT: Final = Table(
    "ops.check_result",
    {
        "suite": "varchar",
        "table_name": "varchar",
        "check_name": "varchar",
        "column_name": "varchar",
        "severity": "varchar",
        "success": "boolean",
        "observed": "varchar",
        "detail": "varchar",
        "night": "date",
        "model": "varchar",
        "available_at": "timestamptz",
    },
)
"""One row per suite, model, night, table and expectation; `model` is empty for what is checked for all models."""

# -- what was answered by night -------------------------------------------------------------------

PREDICTION: Final = Table(
    "ops.prediction",
    {
        "request_id": "varchar",
        "model": "varchar",
        "version": "integer",
        "role": "varchar",
        "entity_id": "varchar",
        "prediction_time": "timestamptz",
        "score": "double",
        "scores": "varchar",
        "tier": "varchar",
        "tier_reason": "varchar",
        "slices": "varchar",
        "snapshot": "bigint",
        "apart": "varchar",
        "night": "date",
        "available_at": "timestamptz",
        "scored_at": "timestamptz",
        "cohort": "date",
    },
)
"""One row per version and spine row. `tier` names who answered (champion, previous, light, safe_default) on the one row
per spine row that was served, and is `shadow` on the others. `scores` is a JSON object, class → probability, where the
label is one of several classes, and `score` then the probability of the likeliest; NULL elsewhere. `slices` is a JSON
object, slice column → value. `snapshot` is the lake's snapshot of the batch that was in service; `apart` a JSON object
of the tables that were read elsewhere, table → [snapshot, last good night], and NULL where there was none. `cohort` is
the night that names the row's cohort where that is not `night`: of a model whose horizon goes until a column of the
spine."""

LIGHT_SCORE: Final = Table(
    "ops.light_score",
    {
        "model": "varchar",
        "version": "integer",
        "entity_id": "varchar",
        "prediction_time": "timestamptz",
        "score": "double",
        "scores": "varchar",
        "night": "date",
        "available_at": "timestamptz",
    },
)
"""One row per spine row that the champion's light twin scored unseen, of models whose errors have a price; `version` is
the champion's."""

PROFILE: Final = Table(
    "ops.profile",
    {
        "model": "varchar",
        "version": "integer",
        "night": "date",
        "column_name": "varchar",
        "counts": "integer[]",
        "rows": "integer",
        "available_at": "timestamptz",
    },
)
"""One row per model, version, night and column: how many of the night's rows lie in each of the version's own cells."""

EVALUATION: Final = Table(
    "ops.evaluation",
    {
        "model": "varchar",
        "night": "date",
        "version": "integer",
        "role": "varchar",
        "slice": "varchar",
        "matured": "bigint",
        "missing": "bigint",
        "immature": "bigint",
        "early": "bigint",
        **dict.fromkeys(FIGURES, "double"),
        "mean_score": "double",
        "cohort_from": "timestamptz",
        "cohort_to": "timestamptz",
        "available_at": "timestamptz",
    },
)
"""One row per model, night, version and slice. It has the figures of its kind of label (see `target`), the others are
NULL. `matured` rows are those the figures stand on, from the last drift.window of matured cohorts, and `missing` the
rows of these cohorts without a label; the other two count the version's rows that have not matured."""

ESTIMATE: Final = Table(
    "ops.estimate",
    {
        "model": "varchar",
        "night": "date",
        "version": "integer",
        "role": "varchar",
        "rows": "bigint",
        "is_calibrated": "boolean",
        "calibration_rows": "bigint",
        "brier": "double",
        "brier_low": "double",
        "brier_high": "double",
        "log_loss": "double",
        "auc": "double",
        "positive_rate": "double",
        "cohort_from": "timestamptz",
        "cohort_to": "timestamptz",
        "available_at": "timestamptz",
    },
)
"""One row per model, night and version with rows whose cohort has not matured: what their scores promise, by a map
learned from `calibration_rows` matured rows of the version (see `judge/estimate.py`)."""

DRIFT: Final = Table(
    "ops.drift",
    {
        "model": "varchar",
        "night": "date",
        "version": "integer",
        "column_name": "varchar",
        "kind": "varchar",
        "statistic": "varchar",
        "value": "double",
        "threshold": "double",
        "drifted": "boolean",
        "note": "varchar",
        "available_at": "timestamptz",
    },
)
"""One row per model, night and column that was compared with the reference: the statistic, and where it counts as
drifted."""

DRIFT_DETECTOR: Final = Table(
    "ops.drift_detector",
    {
        "model": "varchar",
        "night": "date",
        "version": "integer",
        "start": "date",
        "since": "date",
        "evidence": "double",
        "threshold": "double",
        "trusted": "boolean",
        "harm": "varchar",
        "harm_reason": "varchar",
        "columns": "varchar",
        "available_at": "timestamptz",
    },
)
"""One row per model and night: since when the version's detector counts (`start`), and the alarm stands (`since`), for
the next night to go on from; whether the night could be trusted; evidence and weight of every column, as JSON."""

# -- what was answered online ---------------------------------------------------------------------

REQUEST: Final = Table(
    "ops.request",
    {
        "request_id": "varchar",
        "row": "integer",
        "model": "varchar",
        "arm": "varchar",
        "version": "integer",
        "tier": "varchar",
        "reason": "varchar",
        "score": "double",
        "scores": "varchar",
        "entity_id": "varchar",
        "prediction_time": "timestamptz",
        "scored_at": "timestamptz",
        "latency_us": "bigint",
        "snapshot": "bigint",
        "features": "varchar",
        "given": "varchar",
        "views": "varchar",
        "key": "varchar",
        "night": "date",
        "available_at": "timestamptz",
    },
)
"""One row per row that was answered. `score` and `scores` as in ops.prediction. `features` is a JSON object, feature →
value as the model got it; `given` a JSON list of those the caller gave; `views` a JSON object, view → [key, event_time,
available_at] of the row that was looked up, or null where there was none. `night` is the one whose day the prediction
time lies in."""

REQUEST_SHADOW: Final = Table(
    "ops.request_shadow",
    {
        "request_id": "varchar",
        "row": "integer",
        "model": "varchar",
        "version": "integer",
        "score": "double",
        "scores": "varchar",
        "scored_at": "timestamptz",
        "available_at": "timestamptz",
    },
)
"""One row per row of ops.request and version that scored it without answering."""

REQUEST_SEGMENT: Final = Table(
    "ops.request_segment",
    {
        "segment": "varchar",
        "boot": "varchar",
        "requests": "bigint",
        "shadow": "bigint",
        "unreadable": "bigint",
        "lost": "bigint",
        "is_damaged": "boolean",
        "bytes": "bigint",
        "available_at": "timestamptz",
    },
)
"""One row per segment of the request log that was delivered, and one named `<boot>.lock` where a process had numbered
more records than its segments account for. `lost`: numbered and in no segment; `unreadable`: whole, and no record of
ours."""

ONLINE_EVALUATION: Final = Table(
    "ops.online_evaluation",
    {
        "model": "varchar",
        "night": "date",
        "arm": "varchar",
        "version": "integer",
        "tier": "varchar",
        "requests": "bigint",
        "matured": "bigint",
        "missing": "bigint",
        "immature": "bigint",
        "early": "bigint",
        "unmatched": "bigint",
        "nights": "bigint",
        **dict.fromkeys(FIGURES, "double"),
        "mean_score": "double",
        "cohort_from": "timestamptz",
        "cohort_to": "timestamptz",
        "available_at": "timestamptz",
    },
)
"""One row per model, night, arm, version and tier that answered, and one with tier `all` and no version per arm. The
arm `shadow` are the scores that challengers gave to requests that others answered. `matured` rows are those the figures
stand on, from the last drift.window of matured cohorts, as in ops.evaluation; the other counts are of all requests up
to the night. Intervals are clustered by night, which does not know that one entity may ask often."""

TIER_SHARE: Final = Table(
    "ops.tier_share",
    {
        "model": "varchar",
        "night": "date",
        "channel": "varchar",
        "tier": "varchar",
        "reason": "varchar",
        "answers": "bigint",
        "share": "double",
        "available_at": "timestamptz",
    },
)
"""One row per model, night, channel (nightly, online), tier and reason; `share` is of the answers of that night and
channel."""

TABLES: Final = tuple(table for table in globals().values() if isinstance(table, Table))
"""All of them, in the order in which a night writes them."""
