"""Headers of any table become plain names: small letters, digits and underscores, each once, and none that SQL or
Tiltyard takes for its own. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

RESERVED = frozenset(
    [
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "authorization",
        "binary",
        "both",
        "case",
        "cast",
        "check",
        "collate",
        "column",
        "commutator",
        "concurrently",
        "connect",
        "constraint",
        "create",
        "cross",
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "default",
        "deferrable",
        "desc",
        "describe",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "false",
        "fetch",
        "for",
        "foreign",
        "freeze",
        "from",
        "full",
        "grant",
        "group",
        "hashes",
        "having",
        "ilike",
        "in",
        "initially",
        "inner",
        "intersect",
        "into",
        "is",
        "isnull",
        "join",
        "lambda",
        "lateral",
        "leading",
        "left",
        "like",
        "limit",
        "localtime",
        "localtimestamp",
        "merges",
        "natural",
        "negator",
        "not",
        "notnull",
        "null",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "outer",
        "overlaps",
        "pivot",
        "pivot_longer",
        "pivot_wider",
        "placing",
        "primary",
        "qualify",
        "references",
        "returning",
        "right",
        "rightarg",
        "select",
        "session_user",
        "show",
        "similar",
        "some",
        "summarize",
        "symmetric",
        "table",
        "tablesample",
        "then",
        "to",
        "trailing",
        "true",
        "union",
        "unique",
        "unpivot",
        "using",
        "variadic",
        "verbose",
        "when",
        "where",
        "window",
        "with",
    ]
)
"""Words that SQL does not take for the name of a column, of DuckDB and of the linter."""
OWN = frozenset(
    [
        "event_time",
        "available_at",
        "ingested_at",
        "landed_night",
        "source_file",
        "row_number",
        "built_at",
        "prediction_time",
        "label",
        "copy",
        "version",
        "deadline",
        "known_at",
        "outcome",
    ]
)
"""Names that Tiltyard's tables, and the SQL that is written here, have columns of their own under."""
LONGEST = 40


def plain(text: str) -> str:
    """A text as a plain name: `PatientId` is patient_id, `No-show` is no_show; empty where no letter of it is Latin."""
    latin = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", latin))
    name = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")[:LONGEST].rstrip("_")
    return f"n_{name}" if name[:1].isdigit() else name


def aliases(headers: Sequence[str]) -> tuple[str, ...]:
    """A plain name for each header, each once."""
    taken: set[str] = set()
    names = []
    for place, header in enumerate(headers, start=1):
        name = plain(header) or f"column_{place}"
        if name in RESERVED:
            name = f"{name}_value"
        if name in OWN:
            name = f"source_{name}"
        names.append(free(name, taken))
        taken.add(names[-1])
    return tuple(names)


def free(name: str, taken: Iterable[str]) -> str:
    """The name, or with the first number behind it that nobody has."""
    others = set(taken)
    candidates = (f"{name}_{number}" for number in range(2, len(others) + 3))
    return name if name not in others else next(candidate for candidate in candidates if candidate not in others)


def entity_of(key: str) -> str:
    """What a key names: `patient_id` a patient."""
    return key.removesuffix("_id") if key.endswith("_id") and key != "_id" else key


def one_of(name: str) -> str:
    """What one row of a table is called: of `stops` a stop. Only the regular plurals of English are known."""
    if len(name) < 4 or name.endswith(("ss", "us", "is", "news", "series")) or not name.endswith("s"):
        return name
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    return name[:-2] if name.endswith(("sses", "xes", "ches", "shes")) else name[:-1]


def words(name: str) -> str:
    """A plain name as words."""
    return name.replace("_", " ")
