"""What every stage stands on: settings, the lake and the ledger, opened together and closed together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import Lake
from tiltyard.ledger import Ledger
from tiltyard.settings import Settings


@dataclass(frozen=True)
class Rails:
    settings: Settings
    lake: Lake
    ledger: Ledger

    def published_snapshot(self, as_of: datetime | None = None) -> int:
        """The lake's snapshot in service: that of the features run published last.

        With `as_of`, the features of that night must be published. Raises BadInput when they are not.
        """
        newest = self.ledger.newest_published()
        if newest is None:
            raise BadInput("No features are published yet; run tiltyard features --as-of DATE first.")
        if as_of is not None:
            night = night_closing(as_of)
            own = self.ledger.stage_run("features", "", night)
            if own is None or own["status"] != "done":
                raise BadInput(f"The features of {night} are not published; run tiltyard features --as-of {night}.")
        return int(newest["summary"]["snapshot"])


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[Rails]:
    """Open the rails (starting the embedded PostgreSQL when it is not running) and close them at the end."""
    settings = settings or Settings()
    ledger = Ledger(settings)
    try:
        with Lake(settings) as lake:
            yield Rails(settings, lake, ledger)
    finally:
        ledger.close()
