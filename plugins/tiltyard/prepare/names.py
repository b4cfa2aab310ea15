"""Names of users beside names of ours, in one table. Pure.

Features are quoted wherever they stand in SQL, so that one may be called `order`, `Größe` or `size in cm`. What is ours
beside them begins with an underscore; what does not, since it is kept in files and tables, is listed here, and refused
with a sentence before anything is built. To DuckDB `Size` and `size` are one column.
"""

import unicodedata
from collections.abc import Iterable

from tiltyard.spec import DECIDED, REPORT_COLUMNS, Spec

OF_THE_LAKE = ("rowid", "snapshot_id", "change_type")
"""What the lake's record of what was written to a table says beside the table's own columns, under these names."""
OF_FRAMES = ("prediction_time", *REPORT_COLUMNS, "known_at")
"""What stands beside features: in frames, in the rows that a version keeps of its training, in kept answers."""
OF_VIEWS = ("__event_time", "__available_at")
"""How the times of the row of a view end that a frame has used."""
LONGEST = 128
"""Characters that the name of a feature may have."""


def wrong_feature(name: str, spec: Spec, keys: Iterable[str]) -> str | None:
    """Why a column of a feature view cannot be a feature of this name, as the end of a sentence; None where it can.
    `keys`: the keys of the model's spine and views."""
    if not name.strip() or name != name.strip() or len(name) > LONGEST:
        return f"which is empty, begins or ends with a space, or is longer than {LONGEST} characters"
    if '"' in name or any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name):
        return "which holds a quotation mark, or something that cannot be seen"
    if name.startswith("_"):
        return "whose name begins with an underscore, which is kept for Tiltyard's own"
    if name.lower() in OF_THE_LAKE or is_taken(name, spec, keys):
        return "which is the name of a column of Tiltyard's own, or of a key, beside it"
    return None


def is_taken(name: str, spec: Spec, keys: Iterable[str]) -> bool:
    """Whether a frame has a column of this name already. `keys` as above."""
    taken = {*OF_FRAMES, *keys, *((DECIDED,) if spec.label.until else ())}
    return name.lower() in taken or name.lower().endswith(OF_VIEWS)
