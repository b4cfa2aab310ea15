"""What nights have used, added up for a model, an owner, a tier, a source or a stage, and priced. Pure.

What a source's features have used is nobody's own: the models of the source bear equal parts of it, which are shown
beside what each has used itself. What is done for all models at once stays with the portfolio.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tiltyard.portfolio_rules import Prices
from tiltyard.records import Cost, Record, Stored, Usage
from tiltyard.records.cost import GIGA, total
from tiltyard.spec import Spec
from tiltyard.stages import STAGES

By = Literal["model", "owner", "tier", "source", "stage"]
"""What costs are added up by."""
PORTFOLIO: Final = "all at once"
"""The name under which is shown what was done for all models at once."""
MONTH = 30
"""Nights that a month has."""
LATELY = 30
"""Nights by which it is told what something costs, where no others are asked for."""


@dataclass(frozen=True, kw_only=True)
class Bill(Record):
    """What somebody's nights have used, on average of the nights that are looked at."""

    name: str
    """Whose."""
    models: int
    """Number of models that it is of; 0 for what is nobody's own."""
    usage: Usage
    """What a night has used, without what is shared; of memory the highest."""
    shared_cpu_s: float
    """CPU seconds of a night for the features of their sources, divided among the models of each."""
    stored_bytes: int
    """Bytes that lie there now."""
    price: float | None
    """What a month comes to, 30 nights, the shared part and the storage with it; None without prices."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds of a night, with the shared part."""
        return self.usage.cpu_s + self.shared_cpu_s


def bills(
    costs: Sequence[Cost],
    stored: Sequence[Stored],
    nights: int,
    specs: Sequence[Spec],
    by: By,
    prices: Prices | None,
) -> list[Bill]:
    """The bills of `nights` nights, the dearest first. What was used for somebody who has left the portfolio is shown
    under his name, or with the portfolio where it is not told by models."""
    of_name = {spec.name: spec for spec in specs}
    sources = {spec.source for spec in specs}
    sharing = {source: [spec.name for spec in specs if spec.source == source] for source in sources}
    group = _grouped(by, of_name, sources)
    own: dict[str, list[Usage]] = {}
    shared: dict[str, list[Usage]] = {}
    members: dict[str, set[str]] = {}
    lying: dict[str, int] = {}
    for spec in specs:
        if by != "stage":
            members.setdefault(group(spec.name, ""), set()).add(spec.name)
    for cost in costs:
        readers = sharing.get(cost.name, []) if STAGES[cost.stage].recorded_per == "source" else []
        if readers and by not in ("stage", "source"):
            for name in readers:
                shared.setdefault(group(name, cost.stage), []).append(cost.usage.part(1 / len(readers)))
        else:
            own.setdefault(group(cost.name, cost.stage), []).append(cost.usage)
    for entry in stored:
        key = group(entry.name, "")
        lying[key] = lying.get(key, 0) + entry.bytes
    names = own.keys() | shared.keys() | lying.keys() | members.keys()
    result = []
    for name in names:
        used, of_sources = total(own.get(name, ())), total(shared.get(name, ()))
        night = used.part(1 / max(nights, 1))
        result.append(
            Bill(
                name=name,
                models=len(members.get(name, ())),
                usage=night,
                shared_cpu_s=of_sources.cpu_s / max(nights, 1),
                stored_bytes=lying.get(name, 0),
                price=_price([*own.get(name, ()), *shared.get(name, ())], lying.get(name, 0), nights, prices),
            )
        )
    return sorted(result, key=lambda bill: (-(bill.price or 0), -bill.cpu_s, bill.name))


def a_night(costs: Sequence[Cost], stored: int, nights: int, prices: Prices | None) -> float:
    """What a night of these costs, in money; 0 without prices."""
    monthly = _price([cost.usage for cost in costs], stored, nights, prices)
    return (monthly or 0.0) / MONTH


def _price(usages: Sequence[Usage], stored: int, nights: int, prices: Prices | None) -> float | None:
    if prices is None:
        return None
    used = sum(usage.price(prices) for usage in usages) / max(nights, 1) * MONTH
    return used + stored / GIGA * prices.gb_month


def _grouped(by: By, of_name: Mapping[str, Spec], sources: set[str]) -> Callable[[str, str], str]:
    """Whose bill something is on, by the name that it was put down for and its stage."""

    def group(name: str, stage: str) -> str:
        if by == "stage":
            return stage or "stored"
        spec = of_name.get(name)
        if spec is None:
            is_named = by == "model" or (by == "source" and name in sources)
            return name if name and is_named else PORTFOLIO
        return {"model": spec.name, "owner": spec.owner, "tier": f"tier {spec.tier}", "source": spec.source}[by]

    return group
