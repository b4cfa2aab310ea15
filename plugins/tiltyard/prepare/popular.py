"""The most popular items: what a model that ranks offers with its safe default, where one caller is like another.

A dbt model (pop_*) keeps, for each day, how popular items were on the days before it; it is brought up to date with
the features of every night, and published with them. Read at an instant it says what was known then, never more.
"""

from datetime import datetime

import duckdb

from tiltyard.lake import At, qualified
from tiltyard.rails import Rails
from tiltyard.records import PopularItem, Publication
from tiltyard.spec import Spec


def items(rails: Rails, spec: Spec, as_of: datetime, at: At = None) -> tuple[PopularItem, ...]:
    """The most popular items of the newest day that had ended at `as_of`, the best first.

    There are `fallback.popular.size` of them. Read as they are in service, or `at` another state of the lake. Empty for
    a model that declares none, where no day has ended yet, for a table that was never good, and at a snapshot from
    before there was the table. Raises BadInput when no features are published.
    """
    if spec.fallback.popular is None:
        return ()
    at = rails.publication() if at is None else at
    if isinstance(at, Publication) and (state := at.state(spec.fallback.popular.table)) and state.snapshot is None:
        return ()
    table = f"{{{qualified(spec.fallback.popular.table)}}}"
    try:
        rows = rails.lake.query(
            f"select item_id, item_name, score from {table} "
            f"where event_time = (select max(event_time) from {table} where event_time <= $as_of) "
            "order by score desc, item_id limit $size",
            as_of,
            {"as_of": as_of, "size": spec.fallback.popular.size},
            at,
        )
    except duckdb.CatalogException:  # what is published is from before there was the table
        return ()
    return tuple(
        PopularItem(row["item_id"], row["item_name"] or row["item_id"], float(row["score"]))
        for row in rows.astype(object).where(rows.notna(), None).to_dict("records")
    )
