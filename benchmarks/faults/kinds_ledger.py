"""Faults of the ledger: rows that cannot be read any more, of one model, one source or one table."""

from datetime import timedelta

from faults.base import LAST
from faults.business import model, view
from faults.kind import Kind, Place, add, all_of
from tiltyard.stages import IN_CHUNKS

NOBODY: frozenset[str] = frozenset()
SOURCE = "haven"
ONE = model(SOURCE, "money")
BEFORE = LAST.date()
READ_BY_STAGES = ("finding", "version", "decision", "promotion")
"""Tables of the ledger in which no features look."""
RUBBISH = """'{"rubbish": [1, 2, 3]}'::jsonb"""


def row(
    name: str,
    what: str,
    table: str,
    where: str,
    change: str,
    downstream: frozenset[str] = frozenset({ONE}),
    sources: tuple[str, ...] = (),
    lasting: str = "",
    unseen: str = "",
    again: bool = False,
) -> None:
    add(
        Kind(
            name,
            "ledger",
            what,
            downstream,
            lambda place: place.ledger(table, where, change),
            sources=sources,
            late=table in READ_BY_STAGES,
            again=again,
            lasting=lasting,
            unseen=unseen,
        )
    )


OWN = f"model = '{ONE}'"
for _stage in IN_CHUNKS:
    row(
        f"record_of_{_stage}",
        f"The records of {_stage} of a model cannot be read.",
        "stage_run",
        f"{OWN} and stage = '{_stage}'",
        f"summary = {RUBBISH}",
        unseen="no later night reads them; who asks for the status of their own night is told",
    )
row(
    "record_of_features",
    "The record of a source's features of the night before cannot be read.",
    "stage_run",
    f"model = '{SOURCE}' and stage = 'features'",
    f"summary = {RUBBISH}",
    all_of(SOURCE),
    (SOURCE,),
)
row(
    "record_of_the_governor",
    "The record of the governor of the night before cannot be read.",
    "stage_run",
    "model = '' and stage = 'governor'",
    f"summary = {RUBBISH}",
    NOBODY,
)
row(
    "finding",
    "A model's findings cannot be read.",
    "finding",
    OWN,
    f"body = {RUBBISH}",
    unseen="the governor reads those of its own night",
)
row(
    "finding_is_a_number",
    "A model's findings are a number.",
    "finding",
    OWN,
    "body = '7'::jsonb",
    unseen="the governor reads those of its own night",
)
row(
    "version_of_champion",
    "The ledger's row of the champion's version cannot be read.",
    "version",
    f"{OWN} and version = 2",
    f"facts = {RUBBISH}, digests = '[]'::jsonb",
    again=True,
)
row(
    "version_without_digests",
    "The ledger's row of the champion's version has no digests.",
    "version",
    f"{OWN} and version = 2",
    "digests = '{}'::jsonb",
    again=True,
)
row(
    "decision",
    "The gate's decisions on a model cannot be read.",
    "decision",
    OWN,
    f"evidence = {RUBBISH}, reasons = '7'::jsonb, verdict = 'perhaps'",
    unseen="a later night reads who was rejected, and none was; who asks for them is told",
)
row(
    "approval",
    "The approval of a promotion cannot be read.",
    "promotion",
    OWN,
    "approval = '7'::jsonb, approved_by = 'nobody', requested_by = 'nobody'",
)
row(
    "promotion_of_no_version",
    "A promotion speaks of a version that there is not.",
    "promotion",
    f"{OWN} and night = (select max(night) from promotion where {OWN})",
    "version = 99",
    again=True,
)
row(
    "publication_without_snapshot",
    "The ledger does not know where a table stood.",
    "publication",
    f"table_name = '{view(SOURCE, 'payments')}'",
    "snapshot = null, good_night = null",
    frozenset({ONE, model(SOURCE, "full"), model(SOURCE, "habits")}),
    (SOURCE,),
)
row(
    "publication_of_another_lake",
    "The ledger says that a table stood at a snapshot that there is not.",
    "publication",
    f"table_name = '{view(SOURCE, 'payments')}'",
    "snapshot = 99999999",
    frozenset({ONE, model(SOURCE, "full"), model(SOURCE, "habits")}),
    (SOURCE,),
)
row(
    "release_unreadable",
    "The ledger's row of the release cannot be read.",
    "release",
    "true",
    "refused = '7'::jsonb",
    NOBODY,
)


def _pointer(place: Place) -> None:
    place.write(place.at.home / "releases" / "current", "../../etc")


def _release_changed(place: Place) -> None:
    """Somebody edits the release in force, past the checkout."""
    folder = place.at.home / "releases" / (place.at.home / "releases" / "current").read_text().strip()
    place.write(folder / "models" / ONE / "spec.yaml", "tier: [")


add(
    Kind(
        "release_pointer",
        "ledger",
        "The file that names the release in force is rubbish.",
        NOBODY,
        _pointer,
        unseen="the ledger has the release as well, and the file is written again; the log says so",
    )
)
add(
    Kind(
        "release_changed",
        "ledger",
        "Somebody has changed a spec of the release in force, past the checkout.",
        NOBODY,
        _release_changed,
    )
)
assert timedelta
