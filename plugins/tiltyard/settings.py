"""Where things are. Read from the environment, prefix `TILTYARD_`; every default works on one laptop.

Secrets (database passwords, S3 keys) come from the environment only: `TILTYARD_DATABASE_URL` and the
usual `AWS_*` variables.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tiltyard.words import ended, meant

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder above plugins/, where this file lies in a checkout."""

ROOT = CHECKOUT if (CHECKOUT / "dbt").is_dir() else Path.cwd()
"""The folder that holds dags/, dbt/, expectations/ and models/: the checkout; for a package that was installed from a
wheel, the folder one works in."""

DATABASES = ("airflow", "mlflow", "lake", "ledger")
ROLES = ("nightly", "pages", "serving", "airflow", "mlflow")
"""Parts of the project that have a login of their own in the database (`tiltyard.roles`)."""

TRAINING_POOL = "trainings"
"""The Airflow pool of the training DAGs: so many train at once as portfolio.yaml says (`trainings.at_once`)."""
GPU_POOL = "gpu"
"""The pool of those whose spec says `device: cuda` (`trainings.on_gpu`)."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "SCARF_ANALYTICS": "false",
}
"""For every process of ours: no tool reports home."""

ENV_PREFIX = "TILTYARD_"
"""How the variables of the environment begin that are read here."""
NO_SETTINGS = (
    "USER", "SERVICE", "SERVE_CLOCK", "DBT_LAKE", "DBT_DATA", "DBT_THREADS", "DBT_TARGET", "OPENED",
    "POSTGRES_PASSWORD", "USUAL_UMASK",
    *(f"{part.upper()}_PASSWORD" for part in ROLES),
)  # fmt: skip
"""Variables with our prefix that are read elsewhere, or that one of our processes sets for another."""


def unknown_variables(environment: Iterable[str]) -> tuple[str, ...]:
    """A sentence on each name of `environment` that looks like a setting and is none, so that a slip of the pen does
    not pass for a default."""
    known = [f"{ENV_PREFIX}{name.upper()}" for name in (*Settings.model_fields, *NO_SETTINGS)]
    unknown = sorted(name for name in environment if name.startswith(ENV_PREFIX) and name not in known)
    return tuple(ended(f"{name} is no setting and has no effect{meant(name, known)}") for name in unknown)


class Settings(BaseSettings):
    """All settings. `Settings()` reads the environment; tests pass `home=tmp_path`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # a setting that cannot be read may be a secret
    )

    home: Path = ROOT / ".tiltyard"
    """State: database cluster, lake files, landing zone, frames, reports, logs. Nobody but its owner may enter it."""
    landing_zone: Path | None = None
    """Where deliveries arrive, one folder per source, when another user brings them: a folder outside of home that he
    may write to. Unset: home/landing."""
    runtime_folder: Path | None = None
    """Where the folder of the embedded database's socket lies; 60 bytes at most. Unset: XDG_RUNTIME_DIR, or the
    system's temporary folder."""
    models: Path = ROOT / "models"
    """One folder per model, each with a spec.yaml and a card.md."""
    dbt: Path = ROOT / "dbt"
    """The dbt project."""
    expectations: Path = ROOT / "expectations"
    """Suites of Great Expectations, as YAML."""

    database_url: str | None = Field(default=None, repr=False)  # it may carry a password
    """Your own PostgreSQL, like postgresql://user:secret@host:5432. Unset: the embedded one."""
    database_prefix: str = "tiltyard_"
    """Prefix of the names of the four databases, airflow, mlflow, lake and ledger, and of the roles."""
    database_role: Literal["nightly", "pages", "serving"] | None = None
    """As which role of `tiltyard roles` this process connects to the embedded database; in a database of your own the
    address names the user. Unset: the owner, who may do everything."""

    lake_data: str | None = None
    """Where the lake's Parquet files lie: a folder or s3://bucket/prefix. Unset: home/lake."""
    lake_encrypted: bool = True
    """Whether a lake that is made from now on has encrypted files, so that a read finds every bit that has turned; the
    keys lie in the catalogue. false is for whoever reads the files with another engine, like Spark: then a bit that
    has turned gives another value until the maintenance looks at the file. A lake stays as it was made."""
    lake_scrub_nights: Annotated[int, Field(ge=1)] = 30
    """Nights in which the maintenance looks at every file of the lake once, for bits that have turned."""
    lake_retention: Annotated[tuple[str, ...], NoDecode] = ()
    """How long rows are kept, like default=1095d,ops.profile=400d; `default` is for every other ops table that may have
    a retention. What models look back for is the least. Unset: for ever."""
    lake_grace_h: Annotated[float, Field(ge=0, le=87_600)] = 48.0
    """Hours for which the maintenance leaves alone every snapshot, and every file that nothing reads any more: longer
    than the longest night, training or read."""
    lake_small_files: Annotated[int, Field(ge=2)] = 8
    """Number of small files of a table, or of files with deleted rows, from which on they are made one."""
    lake_small_mb: Annotated[float, Field(gt=0)] = 32.0
    """Megabytes below which a file is small."""
    mlflow_artifacts: str | None = None
    """Where MLflow keeps artefacts: a folder or s3://bucket/prefix. Unset: home/mlflow."""
    s3_endpoint: str | None = None
    """host:port of an S3 other than Amazon's, reached over https unless s3_insecure. Unset: Amazon's."""
    s3_region: str = "us-east-1"
    """Region of the buckets."""
    s3_insecure: bool = False
    """Whether s3_endpoint is spoken to over plain http."""

    sources: Annotated[tuple[str, ...], NoDecode] = ()
    """Active sources, separated by commas; models of other sources rest. Unset: those that have landed here."""
    data_mirror: Path | None = None
    """A folder that holds the public data sets, laid out like their mirror. Unset: their public homes."""
    data_timeout_s: float = 30.0
    """Seconds a download may stand still before it counts as out of reach."""

    schedule: str = "@daily"
    """When the features DAG of a source starts by itself, UTC, unless its contract says it: a cron expression, @daily,
    or none."""
    unscheduled: Annotated[tuple[str, ...], NoDecode] = ()
    """Sources whose nights do not start by themselves, unless their contract has a schedule of its own; separated by
    commas. `tiltyard start` names those whose data is of the past."""
    source_timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    """Seconds that one look at a source, its checks, or its publication may take."""
    build_timeout_s: Annotated[float, Field(gt=0)] = 900.0
    """Seconds that dbt may take for one source, while the others wait for their turn; then what runs is ended, and its
    tables count as failed."""
    maintenance_schedule: str = "0 4 * * *"
    """When the lake_maintenance DAG starts by itself, UTC, after the night's work: a cron expression, or none."""
    alerts_schedule: str = "*/10 * * * *"
    """When the alerts DAG starts by itself, UTC, beside every night: a cron expression, or none. It only does where
    portfolio.yaml names a route."""
    chunk_models: Annotated[int, Field(ge=1)] = 50
    """Models that one task of shadow, promotion or drift does at most, one after the other in one process."""
    stage_limits: Annotated[tuple[str, ...], NoDecode] = (
        "shadow=30m", "promotion=30m", "drift=30m", "training=6h", "shadow/1=2h", "promotion/1=2h", "drift/1=2h",
    )  # fmt: skip
    """How long one stage of one model may take, like shadow=30m,shadow/1=2h; after a slash the tier. What takes longer
    has failed, and the other models go on. One of these four that is not named here is not limited."""
    governor_wait_h: Annotated[float, Field(ge=0)] = 6.0
    """Hours after a night was published from which on the governor waits for no model that has not come."""
    api_host: str = "127.0.0.1"
    """Where Airflow listens."""
    api_port: int = 8080
    """Port of Airflow's pages and API."""
    public_url: str | None = None
    """How a browser reaches Airflow. Unset: http://api_host:api_port."""

    serve_host: str = "127.0.0.1"
    """Where `tiltyard serve` listens. Beyond loopback it wants serve_keys."""
    serve_port: int = 8090
    """Port of the service."""
    serve_workers: int = 1
    """Processes that serve."""
    serve_refresh_s: float = 5.0
    """Seconds between two looks at the ledger for another champion."""
    serve_deliver_s: float = 60.0
    """Seconds between two deliveries of the request log to the lake, by a process beside the service. 0: only nights
    deliver it, before their shadow stage."""
    serve_max_bytes: int = 1_000_000
    """Bytes of the largest request body."""
    serve_max_rows: int = 1_000
    """Rows of the largest request."""
    serve_max_head_bytes: Annotated[int, Field(ge=1_024)] = 32_768
    """Bytes of the largest head of a request: its line and its fields."""
    serve_head_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds in which a request's head has to come, from the connection or from its first byte on."""
    serve_body_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds in which a request's body has to come, and an answer has to be taken."""
    serve_rest_s: Annotated[float, Field(gt=0)] = 65.0
    """Seconds that a connection may rest between two requests: more than a load balancer lets it."""
    serve_connections: Annotated[int, Field(ge=16)] = 1_000
    """Connections of one serving process. Of its open files (ulimit -n) 128 are kept for log and models, whatever
    stands here."""
    serve_connections_of_one: Annotated[int | None, Field(ge=1)] = None
    """Connections of one serving process from one address; behind a proxy, which is one address, as many as in all.
    Unset: half of those."""
    serve_keys: SecretStr | None = None
    """API keys as `name:sha256`, or `name:sha256:model,model` for one that may ask these models alone, separated by
    commas; the digest is that of the key. Unset: no key is asked for."""
    serve_alert_rows: Annotated[int, Field(ge=0)] = 100
    """Different rows of a model, answered to one key in 28 nights, from which on the model's owner is told that
    somebody may have a copy. 0: nobody is told."""
    serve_trusted: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of the keys whose callers may ask for so much that they could copy a model, like programs of your own:
    nobody is told of them, and no budget is theirs; separated by commas."""
    serve_operators: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of the keys that may read /metrics, and what /readyz says beside its status; separated by commas. Where no
    key is asked for everybody may."""
    serve_explain: bool | None = None
    """Whether explanations are given, and the pages that describe the service. Unset: on loopback only."""
    serve_unlogged: bool = False
    """Whether an answer goes out that the request log does not take, as on a full disk. Unset: it is refused (503)."""
    serve_rate: float | None = None
    """Rows a second that one key may ask for in the long run. Unset: no limit."""
    serve_burst: float | None = None
    """Rows that may come at once after a rest. Unset: the rows of two seconds."""
    serve_budget: int | None = None
    """Rows a UTC day that one key may ask for, so that nobody copies a model by asking it; 0 for no limit. Unset: 200
    for each key that is not trusted, and no limit where no key is asked for."""
    serve_decimals: int | None = None
    """Digits after the point of an answered score, against copying a model as well. Unset: 3 where keys are asked for,
    else all of them."""
    serve_seal: SecretStr | None = None
    """A key, the same for all processes of the service, that seals what home/serving/models says of who serves: whoever
    can write there without it changes nothing. Unset: a digest, which finds damage alone."""
    online_url: SecretStr | None = None
    """Where online features lie, like redis://host:6379/1. Unset: the embedded store in home/online."""
    kafka_options: SecretStr | None = None
    """Options of librdkafka, like security.protocol=SASL_SSL,sasl.username=me, separated by commas. Unset: none."""

    erasure_key: SecretStr | None = None
    """The key of the tombstones of those who were erased: a long random text, the same on every host. Unset: the one in
    home/erasure/key, which is made with the first erasure."""

    hindcast_jobs: Annotated[int | None, Field(ge=1)] = None
    """Processes that a hindcast spreads its models over; each takes half a gigabyte. Unset: one per core."""
    seed: int = 20160229
    """Seed of everything that is drawn: tuning, folds, samples."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Threads of DuckDB, XGBoost and friends in one process."""

    @model_validator(mode="before")
    @classmethod
    def _landed_sources(cls, values: dict[str, object]) -> dict[str, object]:
        if values.get("sources"):
            return values
        home = Path(str(values.get("home", cls.model_fields["home"].default)))
        landing = Path(str(values.get("landing_zone") or home / "landing"))
        staging = Path(str(values.get("dbt", cls.model_fields["dbt"].default))) / "models" / "staging"
        landed = sorted(entry.name for entry in landing.iterdir() if entry.is_dir()) if landing.is_dir() else []
        named = [name for name in landed if re.fullmatch("[a-z][a-z0-9_]*", name)]  # and not lost+found
        promised = [name for name in named if (staging / name / f"_{name}__sources.yml").is_file()]
        return values | {"sources": tuple(promised or named or ("incident",))}

    @field_validator(
        "sources", "unscheduled", "lake_retention", "stage_limits", "serve_operators", "serve_trusted", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("home", "landing_zone", "models", "dbt", "expectations", "data_mirror")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """dbt reads a relative path as one below its project."""
        return value.absolute() if value else None

    @field_validator("runtime_folder")
    @classmethod
    def _short(cls, value: Path | None) -> Path | None:
        if value and (not value.is_absolute() or len(os.fsencode(value)) > 60):
            raise ValueError("it is an absolute path of 60 bytes at most, since that of a socket ends at about 100")
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?", value):
            raise ValueError("it is written like minio.example.org:9000, without http:// before it")
        return value

    @field_validator("lake_data", "mlflow_artifacts")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        if value and (
            not value.isprintable() or ("://" in value and not re.match(r"(s3://[A-Za-z0-9]|file:///)", value))
        ):
            raise ValueError("it is a folder, or written like s3://bucket/prefix")
        return value

    @cached_property
    def runtime(self) -> Path:
        """A short folder for sockets and pid files: Unix socket paths end at about 100 characters."""
        tag = hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:10]
        name = f"tiltyard-{os.getuid()}-{tag}"
        if self.runtime_folder:
            return self.runtime_folder / name
        # Root hands the database to another user, who may not enter root's own runtime folder.
        own = None if os.getuid() == 0 else os.environ.get("XDG_RUNTIME_DIR")
        for base in filter(None, (own, tempfile.gettempdir())):
            if len(os.fsencode(base)) + len(name) < 80:
                return Path(base) / name
        return Path("/tmp") / name

    @cached_property
    def lake_path(self) -> str:
        """Where the lake's Parquet files lie: a folder, or an address in S3."""
        return self.lake_data or str(self.home / "lake")

    @cached_property
    def mlflow_path(self) -> str:
        """Where MLflow keeps artefacts: a folder, or an s3:// address."""
        return self.mlflow_artifacts or str(self.home / "mlflow")

    @property
    def spool(self) -> Path:
        """The request log until it is delivered to the lake."""
        return self.home / "spool"

    @property
    def landing(self) -> Path:
        """Files as they arrive: landing/<source>/…; a file appears there whole, by rename."""
        return self.landing_zone or self.home / "landing"

    @property
    def quarantine(self) -> Path:
        """Where files lie that were refused, each beside its reason."""
        return self.home / "quarantine"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that hold all files of the project but for those of the lake and the texts of its users."""
        return (self.home, self.landing) if self.landing_zone else (self.home,)

    @property
    def frames(self) -> Path:
        """Training frames, immutable Parquet named by the SHA-256 of their content."""
        return self.home / "frames"

    @property
    def reports(self) -> Path:
        """What a person opens: checks, drift reports, plots; served by the Airflow plugin."""
        return self.home / "reports"

    def database(self, name: str) -> str:
        """The name, on the server, of one of the four databases."""
        if name not in DATABASES:
            raise ValueError(f"{name!r} is not one of {DATABASES}")
        return f"{self.database_prefix}{name}"
