"""What a night has used: of the machine, by stage and by whom it was used for, and what that comes to in money."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from tiltyard.portfolio_rules import Prices
from tiltyard.records.base import Record
from tiltyard.stages import StageName

GIGA = 1e9
"""Bytes of a gigabyte, as they are sold."""


@dataclass(frozen=True, kw_only=True)
class Usage(Record):
    """What some work has taken of the machine, as the operating system counts it."""

    cpu_s: float = 0.0
    """CPU seconds, user and system, of its processes and of their children that have ended."""
    wall_s: float = 0.0
    """Seconds that it took."""
    memory_bytes: int = 0
    """Memory of its process at its highest: of everything that the process did, since it needed it at once."""
    read_bytes: int = 0
    """Bytes that were read through calls of the system, from its cache or the disk; what is mapped is not counted."""
    written_bytes: int = 0
    """Bytes that were written so."""

    def __add__(self, other: "Usage") -> "Usage":
        """Both, one after the other."""
        return Usage(
            cpu_s=self.cpu_s + other.cpu_s,
            wall_s=self.wall_s + other.wall_s,
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            read_bytes=self.read_bytes + other.read_bytes,
            written_bytes=self.written_bytes + other.written_bytes,
        )

    def part(self, share: float) -> "Usage":
        """A share of it. The memory stays: who did a part needed the process."""
        return Usage(
            cpu_s=self.cpu_s * share,
            wall_s=self.wall_s * share,
            memory_bytes=self.memory_bytes,
            read_bytes=round(self.read_bytes * share),
            written_bytes=round(self.written_bytes * share),
        )

    def price(self, prices: Prices) -> float:
        """What it comes to: CPU by the second, and memory for as long as the work took."""
        gb_hours = self.memory_bytes / GIGA * self.wall_s / 3600
        return self.cpu_s / 3600 * prices.cpu_hour + gb_hours * prices.gb_hour


def total(usages: Iterable[Usage]) -> Usage:
    """All of them, one after the other."""
    whole = Usage()
    for usage in usages:
        whole += usage
    return whole


def divided(whole: Usage, own: Mapping[str, Usage]) -> dict[str, Usage]:
    """Whose a process was: `whole`, what all of it has used, among those whose `own` work in it was measured.

    What is nobody's own (start, imports, the common commit) is shared in proportion to the own CPU seconds: work that
    takes longer is served longer by what was loaded for it. The parts add up to the whole. Nothing for nobody.
    """
    cpu_s = sum(usage.cpu_s for usage in own.values())
    shares = {name: usage.cpu_s / cpu_s if cpu_s else 1 / len(own) for name, usage in own.items()}
    return {name: whole.part(share) for name, share in shares.items()}


@dataclass(frozen=True, kw_only=True)
class Cost(Record):
    """What a stage of a night has used for a model, a source, or, with an empty name, all at once."""

    stage: StageName
    """The stage."""
    name: str
    """The model; of features the source; empty for a stage of the whole portfolio."""
    night: date
    """The night that it was about."""
    usage: Usage
    """What it has used, all attempts together."""
    processes: int = 1
    """Number of processes that had a part in it."""


@dataclass(frozen=True, kw_only=True)
class Stored(Record):
    """What lies there for a model, a source, or, with an empty name, all at once."""

    name: str
    """The model or source."""
    bytes: int
    """Size of its files."""
