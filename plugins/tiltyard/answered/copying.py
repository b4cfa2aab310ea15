"""Whether one caller has been answered so much that he may have a copy of a model.

A copy is trained on answers (Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security
2016). How many it takes is measured by benchmarks/extraction.py; what a key may ask in a day is limited
(TILTYARD_SERVE_BUDGET), and from so many different rows on (TILTYARD_SERVE_ALERT_ROWS), before a copy decides alike in
95 of 100 cases, the model's owner is told; not of keys that may ask for as much as they like (TILTYARD_SERVE_TRUSTED).
Rows are counted by what was known of them, so that one that is asked again counts once.
"""

from datetime import date, timedelta

from tiltyard import lake
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.tables import REQUEST
from tiltyard.words import counted, listed

WINDOW = timedelta(days=28)
"""The nights whose answers are counted together."""
MUCH = "copy_possible"
"""Kind of the ledger's event for a model that somebody may have a copy of."""
LESS = "copy_not_possible"
"""Kind of the ledger's event that ends it: nobody has asked so much of late."""
KINDS = (MUCH, LESS)


def look(rails: Rails, spec: Spec, night: date) -> dict[str, int]:
    """Name of a key → different rows that it was answered on the last nights until `night`, of those that are over the
    limit; what has changed of it since the last look is an event."""
    most = rails.settings.serve_alert_rows
    if not most or not rails.lake.has(REQUEST):
        return {}
    rows = rails.lake.connection.execute(
        f"select key, count(distinct hash(features)) as rows from {lake.stored(REQUEST)} "
        "where model = $model and key is not null and not list_contains($trusted, key) "
        "and night > $after and night <= $night "
        "group by key having rows >= $most order by rows desc, key",
        {
            "model": spec.name,
            "after": night - WINDOW,
            "night": night,
            "most": most,
            "trusted": list(rails.settings.serve_trusted),
        },
    ).fetchall()
    found = {str(key): int(count) for key, count in rows}
    told = [event for event in rails.ledger.events(spec.name) if event.kind in KINDS and event.night]
    last = next((event for event in reversed(told) if event.night and event.night <= night), None)
    stands = last is not None and last.kind == MUCH
    is_told = stands and last is not None and last.night is not None and last.night > night - WINDOW
    if found and not (is_told and last and last.detail.get("keys") == sorted(found)):
        since = last.detail["since"] if is_told and last else str(night)
        rails.ledger.add_event(
            MUCH, spec.name, night, {"reason": sentence(found, most), "keys": sorted(found), "since": since}
        )
    elif not found and stands:
        rails.ledger.add_event(LESS, spec.name, night, {"reason": f"nobody has asked for {most:,} rows of late"})
    return found


def sentence(found: dict[str, int], most: int) -> str:
    """What is told of the keys that asked much."""
    keys = listed([f"{name} ({counted(count, 'different row')})" for name, count in found.items()])
    return (
        f"so much was answered to {keys} in {WINDOW.days} days (told from {most:,} on) that a copy may decide as the "
        "model does in more than nine of ten cases"
    )
