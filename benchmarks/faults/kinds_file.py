"""Faults of what a source delivers."""

import io
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from faults.business import readers
from faults.kind import Kind, Place, add, all_of, in_a_process

Change = Callable[[pa.Table], pa.Table]
NOBODY: frozenset[str] = frozenset()


def changed(place: Place, source: str, table: str, change: Change) -> bytes:
    """The night's file of a table with other rows, as bytes. Arrow's threads stay in a process of their own."""
    path = place.delivery(source, table)

    def work() -> bytes:
        whole = io.BytesIO()
        pq.write_table(change(pq.read_table(path)), whole)
        return whole.getvalue()

    return in_a_process(work)


def rewritten(source: str, table: str, change: Change) -> Callable[[Place], None]:
    return lambda place: place.write(place.delivery(source, table), changed(place, source, table, change))


def replaced(name: str, value: Callable[[pa.Table], pa.Array]) -> Change:
    return lambda rows: rows.set_column(rows.column_names.index(name), name, value(rows))


def shifted(name: str, days: int) -> Change:
    def later(rows: pa.Table) -> pa.Array:
        return pc.cast(pc.add(rows[name], pa.scalar(days * 86_400_000_000, pa.duration("us"))), rows[name].type)

    return replaced(name, later)


def of_logins(name: str, what: str, put_in: Callable[[Place], None], source: str = "birch") -> None:
    """A fault of the log-ins: only what reads the activity of a customer stands on them."""
    add(Kind(name, "delivery", what, readers(source, "activity"), put_in, sources=(source,)))


def half(place: Place) -> None:
    path = place.delivery("birch", "login")
    content = path.read_bytes()
    place.write(path, content[: len(content) // 2])


def _nested(place: Place) -> None:
    path = place.delivery("birch", "login")
    place.write(path.with_name("yesterday.parquet"), path.read_bytes())


def _stray(place: Place) -> None:
    path = place.delivery("birch", "login")
    place.write(path.parent.parent / "birch_refund" / path.name, path.read_bytes())


def _again(place: Place) -> None:
    path = place.delivery("birch", "login")
    place.write(path.with_name(f"{path.stem}-again.parquet"), path.read_bytes())


def _other_content(place: Place) -> None:
    """The file of the day before, which has landed, comes once more with other content."""
    path = place.delivery("birch", "login")
    earlier = sorted(path.parent.glob("*.parquet"))
    before = earlier[earlier.index(path) - 1]
    place.write(before, changed(place, "birch", "login", lambda rows: rows.slice(0, 5)))


of_logins(
    "file_binary",
    "The night's log-ins are random bytes.",
    lambda place: place.write(place.delivery("birch", "login"), bytes(range(256)) * 40),
)
of_logins("file_truncated", "The night's log-ins are cut off in the middle.", half)
of_logins(
    "file_empty",
    "The night's log-ins are a file of 0 bytes.",
    lambda place: place.write(place.delivery("birch", "login"), b""),
)
of_logins(
    "file_missing_column",
    "A column of the log-ins is missing.",
    rewritten("birch", "login", lambda rows: rows.drop_columns(["device"])),
)
of_logins(
    "file_extra_column",
    "The log-ins have a column that the contract does not know.",
    rewritten("birch", "login", lambda rows: rows.append_column("ip", rows["device"])),
)
of_logins(
    "file_renamed_column",
    "A column of the log-ins has another name.",
    rewritten(
        "birch",
        "login",
        lambda rows: rows.rename_columns(["kind" if name == "device" else name for name in rows.column_names]),
    ),
)
of_logins(
    "file_wrong_type",
    "The keys of the log-ins are text that is no number.",
    rewritten(
        "birch",
        "login",
        replaced("customer_id", lambda rows: pa.array([f"C-{key}" for key in rows["customer_id"].to_pylist()])),
    ),
)
of_logins(
    "file_naive_time",
    "The times of the log-ins have no zone any more.",
    rewritten(
        "birch", "login", replaced("logged_in_at", lambda rows: pc.cast(rows["logged_in_at"], pa.timestamp("us")))
    ),
)
of_logins(
    "file_missing",
    "The night's log-ins do not come, the source's other tables do.",
    lambda place: place.remove(place.delivery("birch", "login")),
)
of_logins(
    "file_no_rows",
    "The night's log-ins are a file without rows.",
    rewritten("birch", "login", lambda rows: rows.slice(0, 0)),
)
of_logins(
    "file_rows_doubled",
    "Every log-in is in the file twice.",
    rewritten("birch", "login", lambda rows: pa.concat_tables([rows, rows])),
)
of_logins(
    "file_written_tomorrow",
    "The log-ins say that they were written in the year 2099: a clock that is wrong.",
    rewritten("birch", "login", shifted("written_at", 27_000)),
)
of_logins(
    "file_happens_tomorrow",
    "The log-ins say that they happened a year later than they were written.",
    rewritten("birch", "login", shifted("logged_in_at", 365)),
)
of_logins(
    "file_no_write_times",
    "The log-ins do not say when they were written.",
    rewritten("birch", "login", replaced("written_at", lambda rows: pa.nulls(len(rows), rows["written_at"].type))),
)
of_logins(
    "file_claims_to_be_old",
    "The log-ins claim to have been written three weeks ago.",
    rewritten("birch", "login", shifted("written_at", -21)),
)
of_logins(
    "file_constant_column",
    "All log-ins come from one device: an export that fills in a default.",
    rewritten("birch", "login", replaced("device", lambda rows: pa.array(["web"] * len(rows)))),
)
of_logins(
    "file_null_column",
    "The log-ins have lost their device.",
    rewritten("birch", "login", replaced("device", lambda rows: pa.nulls(len(rows), pa.string()))),
)
of_logins(
    "file_flood",
    "The source sends a hundred times as many log-ins as usual.",
    rewritten(
        "birch",
        "login",
        lambda rows: pa.concat_tables(
            [
                replaced("login_id", lambda part, number=number: pc.add(part["login_id"], 10_000_000 * number))(rows)
                for number in range(100)
            ]
        ),
    ),
)

add(
    Kind(
        "file_nan",
        "delivery",
        "The amounts of the payments are NaN.",
        readers("cedar", "payments"),
        rewritten("cedar", "payment", replaced("amount_eur", lambda rows: pa.array([float("nan")] * len(rows)))),
        sources=("cedar",),
    )
)
add(
    Kind(
        "file_infinite",
        "delivery",
        "The amounts of the payments are infinite.",
        readers("cedar", "payments"),
        rewritten("cedar", "payment", replaced("amount_eur", lambda rows: pa.array([float("inf")] * len(rows)))),
        sources=("cedar",),
    )
)
add(
    Kind(
        "file_customers_binary",
        "delivery",
        "The night's customers, on whom the spine stands, are random bytes.",
        all_of("cedar"),
        lambda place: place.write(place.delivery("cedar", "customer"), bytes(range(256)) * 40),
        sources=("cedar",),
    )
)
add(
    Kind(
        "truth_stops",
        "delivery",
        "The night's cancellations, of which the labels are made, do not come.",
        all_of("cedar"),
        lambda place: place.remove(place.delivery("cedar", "cancellation")),
        sources=("cedar",),
    )
)
add(Kind("file_named_wrongly", "delivery", "A file is named by no day.", NOBODY, _nested))
add(Kind("file_of_no_table", "delivery", "A file of a table comes that the contract does not know.", NOBODY, _stray))
add(Kind("file_twice", "delivery", "A file comes twice, the second time under another name.", NOBODY, _again))
add(
    Kind(
        "file_of_the_past_rewritten",
        "delivery",
        "Yesterday's file, which has landed, comes again with other content.",
        NOBODY,
        _other_content,
    )
)
add(
    Kind(
        "landing_folder_gone",
        "delivery",
        "The whole folder of a source is gone from the landing zone.",
        all_of("delta"),
        lambda place: place.remove(place.at.landing / "delta"),
        sources=("delta",),
    )
)
add(
    Kind(
        "landing_table_is_a_file",
        "delivery",
        "Where the folder of a table should be lies a file.",
        readers("delta", "activity"),
        lambda place: (
            place.remove(place.at.landing / "delta" / "delta_login"),
            place.write(place.at.landing / "delta" / "delta_login", b"?"),
            None,
        )[-1],
        sources=("delta",),
    )
)
