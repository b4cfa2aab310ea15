"""What nights have cost and which models are worth it, for a page and for the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import get_args

from tiltyard import clock
from tiltyard.chronicle import lately
from tiltyard.errors import BadInput
from tiltyard.govern import bills
from tiltyard.govern.bills import LATELY, Bill, By
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.rails import Rails
from tiltyard.records import ADVICE, ModelWorth, Record
from tiltyard.spec import Spec

WAYS: tuple[By, ...] = get_args(By)
"""What costs are added up by."""


@dataclass(frozen=True, kw_only=True)
class CostSums(Record):
    """What nights have used, added up in one way."""

    by: By
    """What is added up by."""
    first: date
    """The first night that is looked at."""
    last: date
    """The last one."""
    nights: int
    """Number of nights in between that anything was measured on."""
    currency: str | None
    """The unit of money; None without prices."""
    bills: tuple[Bill, ...]
    """The sums, the dearest first."""


@dataclass(frozen=True, kw_only=True)
class CostPage(Record):
    """What a person sees of costs and worth."""

    sums: tuple[CostSums, ...]
    """By model, owner, tier, source and stage."""
    worths: tuple[ModelWorth, ...]
    """What the last maintenance has said of each model; what is advised to change first."""


def sums(
    rails: Rails, specs: Sequence[Spec], by: str = "model", first: date | None = None, last: date | None = None
) -> CostSums:
    """What nights have used, by default the 30 up to the newest. Raises BadInput for a way to add up that there is not,
    and where the first night comes after the last."""
    ways = {str(way): way for way in WAYS}
    if by not in ways:
        raise BadInput(f"Costs are added up by {', '.join(ways)}, not by '{by}'.")
    [found] = _added(rails, specs, (ways[by],), first, last)
    return found


def _added(
    rails: Rails, specs: Sequence[Spec], ways: Sequence[By], first: date | None = None, last: date | None = None
) -> tuple[CostSums, ...]:
    """The same nights, read once and added up in several ways."""
    accounts, prices = rails.ledger.accounts, load_portfolio(rails.settings.models).prices
    until = last or accounts.newest() or clock.now().date()
    since = first or lately(until, LATELY)
    if since > until:
        which = "the last that is asked for" if last else "the newest that has cost anything"
        raise BadInput(f"The first night, {since}, comes after {which}, {until}; choose an earlier one.")
    costs, stored, nights = accounts.costs(since, until), accounts.stored(), accounts.nights(since, until)
    return tuple(
        CostSums(
            by=way,
            first=since,
            last=until,
            nights=nights,
            currency=prices.currency if prices else None,
            bills=tuple(bills.bills(costs, stored, nights, specs, way, prices)),
        )
        for way in ways
    )


@dataclass(frozen=True, kw_only=True)
class ModelCost(Record):
    """What one model costs, and whether it is worth it."""

    bill: Bill
    """What a night of it uses, on average of the last 30."""
    currency: str | None
    """The unit of money; None without prices."""
    worth: ModelWorth | None
    """What the last maintenance has said of it; None before."""


def of_model(rails: Rails, specs: Sequence[Spec], spec: Spec) -> ModelCost | None:
    """What one of the models costs; None where no night of it was measured, and nothing was said of its worth."""
    accounts, prices = rails.ledger.accounts, load_portfolio(rails.settings.models).prices
    said = accounts.worths([spec.name])
    last = accounts.newest()
    if last is None:
        return None
    first = lately(last, LATELY)
    costs = accounts.costs(first, last, [spec.name, spec.source])
    stored = [entry for entry in accounts.stored() if entry.name == spec.name]
    found = bills.bills(costs, stored, accounts.nights(first, last), specs, "model", prices)
    own = next((bill for bill in found if bill.name == spec.name), None)
    if own is None or not (costs or said):
        return None
    return ModelCost(bill=own, currency=prices.currency if prices else None, worth=said[0] if said else None)


def read(rails: Rails, specs: Sequence[Spec]) -> CostPage:
    """Costs in every way, and worths as the last maintenance has put them down."""
    said = rails.ledger.accounts.worths([spec.name for spec in specs])
    order = [*ADVICE]
    return CostPage(
        sums=_added(rails, specs, WAYS),
        worths=tuple(sorted(said, key=lambda worth: (order.index(worth.advice), worth.model))),
    )
