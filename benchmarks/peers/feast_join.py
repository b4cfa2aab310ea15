"""Feast's get_historical_features on the benchmark's Parquet files, in Feast's own environment.

`filter_by_created_timestamp` is its write-time filter. Only the retrieval is timed, from the call to the Arrow table;
defining the view and reading the entity frame, which Feast wants in memory, is not. Called by
benchmarks/point_in_time.py --peers; see README.md here.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["duckdb", "dask"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tiltyard-feast-") as repository:
        seconds, table = joined(asked.folder, asked.store, Path(repository))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sample = pq.read_table(asked.folder / "sample.parquet")["order_id"]
    kept = table.filter(pc.is_in(table["order_id"], value_set=sample)).select(["order_id", "value"])
    pq.write_table(kept, asked.folder / "answered.parquet")
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024}))


def joined(folder: Path, store_type: str, repository: Path) -> tuple[float, pa.Table]:
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(repository / "registry.db"),
            offline_store={"type": store_type},
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="view",
        entities=[entity],
        schema=[Field(name="value", dtype=Float64)],
        source=FileSource(
            path=str(folder / "view.parquet"),
            timestamp_field="event_time",
            created_timestamp_column="available_at",
        ),
        ttl=None,
        online=False,
    )
    store.apply([entity, view])
    spine = pd.read_parquet(folder / "spine.parquet").rename(columns={"prediction_time": "event_timestamp"})
    began = time.perf_counter()
    retrieval = store.get_historical_features(
        entity_df=spine, features=["view:value"], filter_by_created_timestamp=True
    )
    table = retrieval.to_arrow()
    return time.perf_counter() - began, table


if __name__ == "__main__":
    main()
