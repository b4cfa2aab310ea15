"""A clinic's bookings, made up: what was planned, what was written later, and every way to take it into a feature.

A booking is made, now and then its status is written (a message was sent, a guest confirmed), and at its appointment it
is settled. `booking_export` holds one row of each, as the system knew it in the end; `booking_log` one row per writing,
a few of them twice; `booking_stamped` is an export that says when the status was written. Each shape below is a feature
view of its own, with one feature, and what is right to say of it. Whether the status goes with the outcome hangs on the
seed: what is declared needs no statistics.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.prepare import frame, ingest, transform
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.suites import CheckReport
from tiltyard.train import leakage_gate

START = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
DAYS = 60
"""Bookings are made on so many days; the last of them have long been settled at AS_OF."""
LATER = "written_later: true"
COLUMNS = {
    "booking_id": "varchar", "customer_id": "varchar", "guests": "bigint", "made_at": "timestamptz",
    "due_at": "timestamptz", "due_clock": "bigint", "lead_days": "bigint", "sessions": "bigint",
    "status": "varchar", "note": "bigint",
}  # fmt: skip
SAID = {
    "due_at": "planned: true", "due_clock": "planned: true", "lead_days": "planned: true, unit: days",
    "sessions": "planned: true", "customer_id": "identifies: true",
}  # fmt: skip
TABLES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str], str]] = {
    "booking_export": (COLUMNS, SAID | {"status": LATER, "note": LATER}, "made_at"),
    "booking_log": ({**COLUMNS, "written_at": "timestamptz"}, SAID | {"status": LATER, "note": LATER}, "written_at"),
    "booking_stamped": (
        {**COLUMNS, "status_at": "varchar"},
        SAID | dict.fromkeys(
            ("status", "note"), 'written_later: {column: status_at, format: "%d/%m/%Y %H:%M"}, unit: words'
        ),
        "made_at",
    ),
    "outcome": ({"booking_id": "varchar", "is_kept": "boolean", "settled_at": "timestamptz"}, {}, "settled_at"),
}  # fmt: skip
"""Raw table → (column → type, column → what is said of it, the column that tells both its times)."""
TIMES = "event_time, available_at, {{ built_at() }} as built_at"
FIRST = "min(event_time) as event_time, min(available_at) as available_at, {{ built_at() }} as built_at"


def _from(table: str) -> str:
    return f"from {{{{ ref('stg_clinic__{table}') }}}}"


_DATED = (
    "with latest as (select *, row_number() over (partition by booking_id order by available_at desc) as place LOG), "
    f"first as (select booking_id, {FIRST} LOG group by booking_id) "
    "select latest.booking_id, TOLD as told, first.event_time, first.available_at, first.built_at "
    "from latest inner join first on latest.booking_id = first.booking_id where latest.place = 1"
)
"""The last writing of every booking, under the times of the first."""


def _dated(told: str, table: str = "log") -> str:
    return _DATED.replace("TOLD", told).replace("LOG", _from(table))


LEAKS = {
    "carried": f"select booking_id, status as told, {TIMES} {_from('export')}",
    "cast": f"select booking_id, cast(note as double) as told, {TIMES} {_from('export')}",
    "flagged": f"select booking_id, status is not null as told, {TIMES} {_from('export')}",
    "mixed": f"select booking_id, guests * coalesce(note, 0) as told, {TIMES} {_from('export')}",
    "counted": f"select customer_id, count(status) as told, {FIRST} {_from('export')} group by customer_id",
    "chosen": f"with sent as (select * {_from('export')} where status = 'sent') "
    f"select booking_id, guests as told, {TIMES} from sent",
    "of_customer": f"select customer_id, status as told, {TIMES} {_from('export')}",
    "flag_of_customer": f"select customer_id, status is not null as told, {TIMES} {_from('export')}",
    "by_macro": "{{ from_a_macro('stg_clinic__export') }}",
    "last_carried": _dated("latest.status"),
    "last_flagged": _dated("latest.status is not null"),
    "last_mixed": _dated("latest.guests * coalesce(latest.note, 0)"),
    "known_last": _dated("latest.status", "known"),
    "known_last_flag": _dated("latest.status is not null", "known"),
    "greatest": f"select booking_id, max(note) as told, {FIRST} {_from('log')} group by booking_id",
    "stamped": f"select booking_id, status as told, {TIMES} {_from('stamped')}",
    "stamped_flag": f"select booking_id, status is not null as told, {TIMES} {_from('stamped')}",
}
"""View → SQL that takes what was written later under the times of the booking."""
HONEST = {
    "log": f"select booking_id, status as told, {TIMES} {_from('log')}",
    "log_flag": f"select booking_id, status is not null as told, {TIMES} {_from('log')}",
    "log_first": f"select booking_id, status as told, {TIMES} {_from('log')} "
    "qualify row_number() over (partition by booking_id order by available_at) = 1",
    "known": f"select booking_id, status as told, {TIMES} {_from('known')}",
    "known_flag": f"select booking_id, coalesce(status = 'sent', false) as told, {TIMES} {_from('known')}",
    "known_count": "select customer_id, count(status) over (partition by customer_id order by available_at) as told, "
    f"{TIMES} {_from('known')}",
    "guests": f"select booking_id, guests as told, {TIMES} {_from('export')}",
}
"""View → SQL that takes what was written later when it was written, or does not take it."""
PLANNED = {
    "lead": f"select booking_id, lead_days as told, {TIMES} {_from('export')}",
    "lead_hours": "select booking_id, cast(date_diff('hour', event_time, due_at) as integer) as told, "
    f"{TIMES} {_from('export')}",
    "lead_minutes": "select booking_id, cast(date_diff('minute', event_time, due_at) as double) as told, "
    f"{TIMES} {_from('export')}",
    "lead_weeks": f"select booking_id, lead_days // 7 as told, {TIMES} {_from('export')}",
    "sessions": f"select booking_id, sessions as told, {TIMES} {_from('export')}",
    "many": f"select booking_id, sessions > 1 as told, {TIMES} {_from('export')}",
    "clock": f"select booking_id, due_clock as told, {TIMES} {_from('export')}",
    "far": f"select booking_id, nullif(lead_days, 0) as told, {TIMES} {_from('export')}",
    "rest": f"select booking_id, greatest(lead_days - 5, 0) as told, {TIMES} {_from('export')}",
    "newest": f"select booking_id, lead_days as told, {TIMES} {_from('log')}",
}
"""View → SQL of what was known ahead."""
MACRO = f"""{{% macro from_a_macro(table) %}}
select booking_id, status as told, {TIMES} from {{{{ ref(table) }}}}
{{% endmacro %}}
"""
SPEC = """
entity: booking
owner: nobody
tier: 3
source: clinic
prediction: {{spine: spn_booking, features: [{view}]}}
label: {{table: lbl_kept, horizon: 60d}}
estimator: {{class: xgboost.XGBClassifier, window: 90d}}
light: {{class: sklearn.linear_model.LogisticRegression}}
fallback: {{safe_default: 0.5}}
"""


def bookings(seed: int, rows: int = 1_500) -> dict[str, pd.DataFrame]:
    """Raw table → its rows. The shapes of leads, how many are written of, and how that goes with the outcome, differ
    from seed to seed."""
    rng = np.random.default_rng(seed)
    made = START + pd.to_timedelta(np.sort(rng.integers(0, DAYS * 1_440, rows)), unit="min")
    lead = np.clip(rng.gamma(rng.uniform(1, 3), rng.uniform(3, 8), rows), 0.02, 55)
    due = made + pd.to_timedelta(np.round(lead * 1_440), unit="min")
    risk = rng.normal(size=rows) + rng.uniform(0, 0.1) * lead
    kept = risk < np.quantile(risk, rng.uniform(0.4, 0.9))
    tells = rng.choice([0.0, 0.3, 0.9])
    is_written = rng.random(rows) < np.where(kept, 0.5 + tells / 2, 0.5 - tells / 2)
    written = made + pd.to_timedelta(np.ceil(rng.uniform(0.1, 0.9, rows) * lead * 1_440), unit="min")
    booked = pd.DataFrame(
        {
            "booking_id": [f"b{number}" for number in range(rows)],
            "customer_id": [f"c{number}" for number in rng.integers(0, rows // 4, rows)],
            "guests": rng.integers(1, 5, rows),
            "made_at": made,
            "due_at": due,
            "due_clock": due.hour * 100 + due.minute,
            "lead_days": lead.astype(int),
            "sessions": (lead // rng.integers(4, 9)).astype(int),
            "status": np.where(is_written, rng.choice(["sent", "seen"], rows), None),
            "note": pd.array(np.where(is_written, rng.integers(1, 9, rows), None), dtype="Int64"),
        }
    )
    first = booked.assign(status=None, note=pd.array([None] * rows, dtype="Int64"), written_at=booked["made_at"])
    second = booked.assign(written_at=written)[is_written]
    stamped = booked.assign(status_at=np.where(is_written, written.strftime("%d/%m/%Y %H:%M"), None))
    settled = due + pd.to_timedelta(np.round(rng.exponential(30, rows)), unit="min")
    return {
        "booking_export": booked,
        "booking_log": pd.concat([first, second, second[:5]]).sort_values("written_at", kind="stable"),
        "booking_stamped": stamped,
        "outcome": pd.DataFrame({"booking_id": booked["booking_id"], "is_kept": kept, "settled_at": settled}),
    }


@contextmanager
def opened(settings: Settings, folder: Path, seed: int, *, said: bool = True) -> Iterator[Rails]:
    """The clinic, landed and built. Without `said` nothing is said of any column."""
    dbt = project(folder, said=said)
    settings = settings.model_copy(update={"dbt": dbt, "sources": ("clinic",)})
    for table, rows in bookings(seed).items():
        path = settings.landing / "clinic" / table / f"{AS_OF - timedelta(days=1):%Y-%m-%d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path, index=False)
    with rails_module.opened(settings) as rails:
        ingest.land_night(rails, "clinic", AS_OF)
        transform.build(rails, ("clinic",), AS_OF)
        yield rails


def project(folder: Path, *, said: bool = True) -> Path:
    """A dbt project of the clinic; its folder."""
    dbt = folder / "dbt"
    shutil.copytree(ROOT / "dbt" / "macros", dbt / "macros", ignore=shutil.ignore_patterns("tests"))
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(ROOT / "dbt" / name, dbt / name)
    (dbt / "macros" / "from_a_macro.sql").write_text(MACRO)
    staging = dbt / "models" / "staging" / "clinic"
    staging.mkdir(parents=True)
    (staging / "_clinic__sources.yml").write_text(_sources(said))
    for table in TABLES:
        short = table.removeprefix("booking_")
        columns = "*" if table == "outcome" else "* exclude (source_file, row_number, landed_night)"
        sql = f"select {columns}, {{{{ built_at() }}}} as built_at from {{{{ source('clinic', '{table}') }}}}"
        _write(staging / f"stg_clinic__{short}.sql", sql)
    # blank until it was written: a row as it was booked, and one as it was written
    at = "strptime(status_at, '%d/%m/%Y %H:%M')::timestamptz"
    _write(
        staging / "stg_clinic__known.sql",
        f"with timed as (select * exclude (status_at), {at} as status_at "
        "from {{ source('clinic', 'booking_stamped') }}), "
        "told as (select * exclude (event_time, available_at), event_time, available_at from timed union all "
        "select * exclude (event_time, available_at), status_at as event_time, status_at as available_at from timed "
        "where status_at is not null) "
        "select booking_id, customer_id, case when status_at <= available_at then status end as status, "
        "case when status_at <= available_at then status_at end as status_at, "
        "event_time, available_at, {{ built_at() }} as built_at from told",
    )
    if said:
        (staging / "stg_clinic__known.yml").write_text(
            "version: 2\nmodels:\n  - name: stg_clinic__known\n    columns:\n"
            "      - {name: status, config: {meta: {tiltyard: {written_later: status_at}}}}\n"
            "      - {name: status_at, config: {meta: {tiltyard: {written_later: status_at}}}}\n"
        )
    models = dbt / "models"
    _write(models / "spines" / "spn_booking.sql",
           f"select booking_id, customer_id, event_time as prediction_time, {TIMES} {_from('export')}")  # fmt: skip
    _write(models / "labels" / "lbl_kept.sql",
           "select made.booking_id, made.event_time as prediction_time, outcome.is_kept as label, outcome.event_time, "
           "outcome.available_at, {{ built_at() }} as built_at "
           f"{_from('outcome')} as outcome inner join {{{{ ref('stg_clinic__export') }}}} as made "
           "on made.booking_id = outcome.booking_id")  # fmt: skip
    for shapes in (LEAKS, HONEST, PLANNED):
        for name, sql in shapes.items():
            _write(models / "features" / f"{view(name)}.sql", sql)
    return dbt


def _sources(said: bool) -> str:
    lines = ["version: 2", "sources:", "  - name: clinic", "    database: lake", "    schema: raw", "    tables:"]
    for table, (columns, meta, time) in TABLES.items():
        times = f"{{event_time: {{column: {time}}}, available_at: {{column: {time}}}}}"
        lines += [f"      - name: {table}", f"        config: {{meta: {{tiltyard: {times}}}}}", "        columns:"]
        for name, kind in columns.items():
            told = f", config: {{meta: {{tiltyard: {{{meta[name]}}}}}}}" if said and name in meta else ""
            lines.append(f"          - {{name: {name}, data_type: {kind}{told}}}")
    return "\n".join(lines) + "\n"


def _write(path: Path, sql: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{{ config(materialized='table', contract={'enforced': false}) }}\n" + sql + "\n")


def view(shape: str) -> str:
    """The feature view of a shape."""
    sql = {**LEAKS, **HONEST, **PLANNED}[shape]
    return f"ftr_{'customer' if 'select customer_id' in sql else 'booking'}__{shape}"


def judged(rails: Rails, folder: Path, shape: str) -> CheckReport:
    """What the gate before training says of a model that reads one shape."""
    home = folder / "models" / shape
    home.mkdir(parents=True, exist_ok=True)
    (home / "spec.yaml").write_text(SPEC.format(view=view(shape)))
    spec = specs.load(home)
    return leakage_gate.check_frame(rails, spec, frame.training(rails, spec, AS_OF), AS_OF, render=False, record=False)


def accusations(report: CheckReport) -> list[str]:
    """What the gate holds against the feature, critical or not."""
    return [f"{one.severity}: {one.detail}" for one in (*report.critical_failures, *report.warnings)
            if "told" in (one.column or "")]  # fmt: skip
