"""What every stage stands on: settings, the lake and the ledger, opened together and closed together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tiltyard.lake import Lake
from tiltyard.ledger import Ledger
from tiltyard.settings import Settings


@dataclass(frozen=True)
class Rails:
    settings: Settings
    lake: Lake
    ledger: Ledger


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
