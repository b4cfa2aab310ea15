"""Faults of places: files of versions, folders of the home on a full disk, the store of online features, MLflow."""

from pathlib import Path

import sqlalchemy as sa

from faults import business
from faults.business import every_model, model, models_of, readers, view
from faults.kind import Kind, Place, add, all_of, in_a_process
from tiltyard import postgres

NOBODY: frozenset[str] = frozenset()
SOURCE = "fjord"
ONE = model(SOURCE, "full")
VERSIONS = {"previous": 1, "champion": 2, "challenger": 3}


def artefacts(place: Place, version: int, file: str) -> list[Path]:
    """A file of a version, wherever it lies: in MLflow's store and in the cache."""
    cached = place.at.home / "cache" / ONE / str(version) / file
    content = cached.read_bytes()
    stored = [path for path in (Path(place.at.mlflow_path) / ONE).rglob(file) if path.read_bytes() == content]
    if not stored:
        raise SystemExit(f"{file} of {ONE} version {version} is not in MLflow's store.")
    return [cached, *stored]


def corrupt(version: int, file: str, what: str, name: str) -> None:
    def put_in(place: Place) -> None:
        for path in artefacts(place, version, file):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            place.write(path, bytes(content))

    add(Kind(name, "version", what, frozenset({ONE}), put_in, late=True, again=True))


for _role, _version in VERSIONS.items():
    corrupt(
        _version,
        "model.onnx",
        f"A bit of the {_role}'s model is another one, in the store and in the cache.",
        f"corrupt_{_role}",
    )
corrupt(2, "light.onnx", "A bit of the champion's light twin is another one.", "corrupt_light")
corrupt(2, "encoding.json", "A bit of the champion's encoding is another one.", "corrupt_encoding")


def _gone(place: Place) -> None:
    for path in artefacts(place, 2, "model.onnx"):
        place.remove(path)


def _all_gone(place: Place) -> None:
    place.remove(Path(place.at.mlflow_path) / ONE)
    place.remove(place.at.home / "cache" / ONE)


def _cache_only(place: Place) -> None:
    """Only the cache: the store has the file whole."""
    path = artefacts(place, 2, "model.onnx")[0]
    place.write(path, b"not a model")


add(
    Kind(
        "file_of_champion_gone",
        "version",
        "A file of the champion is gone, in the store and in the cache.",
        frozenset({ONE}),
        _gone,
        late=True,
        again=True,
    )
)
add(
    Kind(
        "versions_all_gone",
        "version",
        "All files of all versions of a model are gone.",
        frozenset({ONE}),
        _all_gone,
        late=True,
        again=True,
    )
)
add(
    Kind(
        "cache_damaged",
        "version",
        "The champion's file is damaged in the cache alone.",
        NOBODY,
        _cache_only,
        late=True,
        unseen="MLflow's store has it whole; the log says that it was fetched again",
    )
)
add(
    Kind(
        "cache_is_a_file",
        "version",
        "Where the cache of a model's versions should be lies a file.",
        frozenset({ONE}),
        lambda place: (
            place.remove(place.at.home / "cache" / ONE),
            place.write(place.at.home / "cache" / ONE, b"?"),
            None,
        )[-1],
        late=True,
        again=True,
    )
)


def registry(what: str) -> None:
    """MLflow's own database, past MLflow."""


def _mlflow_model(place: Place) -> None:
    def rename(old: str, new: str) -> None:
        def work() -> None:
            engine = sa.create_engine(postgres.url(place.at, "mlflow"), poolclass=sa.NullPool)
            with engine.begin() as connection:
                for table in ("registered_model_aliases", "model_versions", "registered_models"):
                    connection.execute(sa.text(f"alter table {table} disable trigger all"))
                    connection.execute(
                        sa.text(f"update {table} set name = :new where name = :old"), {"new": new, "old": old}
                    )
                    connection.execute(sa.text(f"alter table {table} enable trigger all"))

        in_a_process(work)

    rename(ONE, f"{ONE}_aside")
    place.undo.append(lambda: rename(f"{ONE}_aside", ONE))


def _mlflow_away(place: Place) -> None:
    def rename(old: str, new: str) -> None:
        def work() -> None:
            server = postgres.server_url(place.at).set(database="postgres")
            engine = sa.create_engine(server, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(sa.text(f'alter database "{old}" rename to "{new}"'))
                connection.execute(
                    sa.text(f'alter database "{new}" allow_connections {"false" if new.endswith("aside") else "true"}')
                )

        in_a_process(work)

    name = place.at.database("mlflow")
    rename(name, f"{name}_aside")

    def back() -> None:
        def drop() -> None:
            server = postgres.server_url(place.at).set(database="postgres")
            engine = sa.create_engine(server, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(sa.text(f'drop database if exists "{name}" with (force)'))

        in_a_process(drop)
        rename(f"{name}_aside", name)

    place.undo.append(back)


add(Kind("mlflow_model_gone", "version", "MLflow's registry knows a model no longer.", frozenset({ONE}), _mlflow_model))
add(Kind("mlflow_away", "version", "MLflow's database is gone.", NOBODY, _mlflow_away))


# -- disks ------------------------------------------------------------------------------------------------------------


def full(
    name: str,
    what: str,
    folder: str,
    downstream: frozenset[str] = NOBODY,
    sources: tuple[str, ...] = (),
    also: str | None = None,
) -> None:
    def put_in(place: Place) -> None:
        if also == "file":
            place.write(place.delivery(SOURCE, "login"), b"rubbish")
        if also == "text":
            place.change(place.spec(ONE), lambda text: text + "# another text\n")
        place.full(place.at.home / folder)

    add(Kind(name, "disk", what, downstream, put_in, sources=sources))


full(
    "disk_of_a_view",
    "The disk of one feature view's files is full.",
    f"lake/features/{view(SOURCE, 'payments')}",
    readers(SOURCE, "payments"),
    (SOURCE,),
)
full(
    "disk_of_a_raw_table",
    "The disk of one raw table's files is full.",
    f"lake/raw/{SOURCE}_login",
    all_of(SOURCE),
    (SOURCE,),
)
full("disk_of_predictions", "The disk of the predictions is full.", "lake/ops/prediction", frozenset(every_model()))
full("disk_of_the_lake", "The disk of the whole lake is full.", "lake", frozenset(every_model()), business.SOURCES)
full("disk_of_reports", "The disk of the reports is full.", "reports")
full("disk_of_frames", "The disk of the training frames is full.", "frames")
full("disk_of_mlflow", "The disk of MLflow's artefacts is full.", "mlflow")
full("disk_of_the_cache", "The disk of the cached versions is full.", "cache")
full("disk_of_the_spool", "The disk of the request log is full.", "spool")
full("disk_of_the_online_store", "The disk of the online features is full.", "online")
full("disk_of_releases", "The disk of the releases is full, and a text has changed.", "releases", also="text")
full(
    "disk_of_the_quarantine",
    "The disk of the quarantine is full, and a file is rubbish.",
    "quarantine",
    readers(SOURCE, "activity"),
    (SOURCE,),
    also="file",
)
full("disk_of_dbt", "The disk of dbt's working files is full.", "dbt", frozenset(every_model()), business.SOURCES)


# -- the store of online features -------------------------------------------------------------------------------------


def _damaged(place: Place) -> None:
    [path] = (place.at.home / "online").rglob("data.mdb")
    place.write(path, b"\xa5" * path.stat().st_size)


add(Kind("online_damaged", "online", "The store of online features is overwritten with rubbish.", NOBODY, _damaged))
add(
    Kind(
        "online_gone",
        "online",
        "The store of online features is gone.",
        NOBODY,
        lambda place: place.remove(place.at.home / "online"),
    )
)
add(
    Kind(
        "online_is_a_file",
        "online",
        "Where the store of online features should be lies a file.",
        NOBODY,
        lambda place: (place.remove(place.at.home / "online"), place.write(place.at.home / "online", b"?"), None)[-1],
    )
)
add(
    Kind(
        "online_elsewhere",
        "online",
        "The store of online features is a Redis that nobody has started.",
        NOBODY,
        lambda place: None,
        environment={"TILTYARD_ONLINE_URL": "redis://127.0.0.1:1/0"},
    )
)
assert models_of and registry
