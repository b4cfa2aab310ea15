"""Airflow's settings as environment variables, its two logins, and where it is reached."""

import base64
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.engine import URL

from tiltyard import postgres
from tiltyard.errors import BadInput
from tiltyard.files import whole, whole_once
from tiltyard.settings import NO_TELEMETRY, ROOT, Settings

PARSED_AGAIN_S = 300
"""Seconds after which a DAG file is parsed again that has not changed: how long a new model may take to be there."""
USER = "admin"
"""Who starts what `make up` and `tiltyard start` let run."""
SECOND_USER = "approver"
"""Who answers what `admin` has asked for: nobody approves what is their own."""
ROLES = {USER: "admin", SECOND_USER: "user"}
"""Login → its role in Airflow's simple auth manager; a `user` sees all, starts DAGs and answers forms."""


@dataclass(frozen=True)
class Keys:
    """What Airflow encrypts and signs with; made once per home."""

    fernet_key: str
    """Key of the passwords in Airflow's database: 32 random bytes in base64."""
    api_secret: str
    """Key of the sessions of its pages."""
    jwt_secret: str
    """Key of the tokens of its API."""


def airflow_env(settings: Settings) -> dict[str, str]:
    """Every setting of Airflow and its tasks, as environment variables. Starts PostgreSQL for its address."""
    metadata = postgres.url(settings, "airflow")
    keys = _keys(settings)
    home = settings.home.resolve() / "airflow"
    logs = settings.home.resolve() / "logs" / "airflow"
    own_address = local_address(settings)
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{own_address}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": keys.fernet_key,
        # The default asks the DNS for the full name, which takes seconds on a machine without one.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in ROLES.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file(settings)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata.render_as_string(hide_password=False),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": _asynchronous(metadata).render_as_string(hide_password=False),
        "AIRFLOW__API__HOST": settings.api_host,
        "AIRFLOW__API__PORT": str(settings.api_port),
        "AIRFLOW__API__BASE_URL": address(settings),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": keys.api_secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.jwt_secret,
        # Above the longest training: a task whose token ran out cannot report that it is done.
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": str(24 * 3600),
        # Between two looks at what there is to do. The default, a second, is felt at each of a night's dozen steps; a
        # tenth of a second keeps a fifth of a core busy, day and night.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        # A file that has changed is parsed at once, whatever this says. What is parsed again without that is parsed for
        # models/ and landing/, whose changes Airflow does not see: every half minute that takes a tenth of a core.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(PARSED_AGAIN_S),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag_processor"),
        # Sends nothing unless a transport is set, as in AIRFLOW__OPENLINEAGE__TRANSPORT or OPENLINEAGE_URL.
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tiltyard",
        "AIRFLOW__OPENLINEAGE__EXTRACTORS": "tiltyard.edge.lineage_events.StageExtractor",
        **tiltyard_env(settings),
        **NO_TELEMETRY,
    }


def tiltyard_env(settings: Settings) -> dict[str, str]:
    """The settings as their environment variables, so that another process has the same ones."""
    values: dict[str, object] = {name: getattr(settings, name) for name in type(settings).model_fields}
    values["home"] = settings.home.resolve()
    if not settings.database_role:  # which is one of the embedded server, and no address of it says so
        values["database_url"] = postgres.server_url(settings).render_as_string(hide_password=False)
    if "TILTYARD_SOURCES" not in os.environ:  # sought anew in the landing zone, as sources arrive
        del values["sources"]
    return {f"TILTYARD_{name.upper()}": _spelled(value) for name, value in values.items() if value is not None}


def address(settings: Settings) -> str:
    """Where a browser finds Airflow."""
    return settings.public_url or local_address(settings)


def local_address(settings: Settings) -> str:
    """Where Airflow's API is reached on this machine."""
    host = settings.api_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"


def password(settings: Settings, user: str = USER) -> str:
    """The password of a login; made once, kept in a file that only its owner reads. A login that came later gets one
    beside those that are there."""
    path = password_file(settings)
    made = {name: secrets.token_urlsafe(12) for name in ROLES}
    passwords = _made_once(path, lambda: made)
    if missing := {name: made[name] for name in ROLES if name not in passwords}:
        passwords = {**passwords, **missing}
        with whole(path) as part:
            part.touch(0o600)
            part.write_text(json.dumps(passwords))
    return passwords[user]


def password_file(settings: Settings) -> Path:
    """The file with the passwords, as Airflow's simple login reads it."""
    return settings.home.resolve() / "airflow" / "passwords.json"


def _keys(settings: Settings) -> Keys:
    password(settings)  # Airflow would make one of its own, and print it
    path = settings.home.resolve() / "airflow" / "secrets.json"
    values = _made_once(
        path,
        lambda: asdict(
            Keys(
                fernet_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
                api_secret=secrets.token_urlsafe(32),
                jwt_secret=secrets.token_urlsafe(64),
            )
        ),
    )
    try:
        return Keys(values["fernet_key"], values["api_secret"], values["jwt_secret"])
    except KeyError as error:
        raise BadInput(f"{path} has no {error.args[0]}; remove it, and a new one is made.") from None


def _made_once(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The JSON in `path`; whoever comes first writes it, whole, readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_once(path) as part:
            part.touch(mode=0o600, exist_ok=False)
            part.write_text(json.dumps(make()))
    try:
        content: dict[str, str] = json.loads(path.read_text())
    except ValueError:
        raise BadInput(f"{path} is not JSON any more; remove it, and a new one is made.") from None
    return content


def _asynchronous(target: URL) -> URL:
    """The same database for asyncpg, which spells `sslmode` its own way."""
    query = {("ssl" if key == "sslmode" else key): value for key, value in target.query.items()}
    return target.set(drivername="postgresql+asyncpg", query=query)


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, SecretStr):  # as text it would be a row of stars
        return value.get_secret_value()
    return str(value.absolute() if isinstance(value, Path) else value)
