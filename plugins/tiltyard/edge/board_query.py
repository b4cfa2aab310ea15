"""What of the board somebody asks to see: filters, order and page, as they stand in the address. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from tiltyard.edge.board import STATES, ModelRow, trouble

PAGE = 25
"""Models a page."""


def _against(row: ModelRow) -> tuple[bool, float]:
    return (row.against_default is None, -(row.against_default or 0.0))


ORDERS: Mapping[str, Callable[[ModelRow], Any]] = {
    "trouble": trouble,
    "model": lambda row: row.model,
    "owner": lambda row: (row.owner.casefold(), row.model),
    "tier": lambda row: (row.tier, row.model),
    "worth": lambda row: (*_against(row), row.model),
    "data": lambda row: (-1 if row.nights_behind is None else 0, -(row.nights_behind or 0), row.model),
    "cost": lambda row: (-(row.price or 0.0), -(row.cpu_s or 0.0), row.model),
}
"""Order → what rows are sorted by; by worth the one that beats its safe default least comes first, by data the one
whose tables are the oldest, by cost the dearest."""


@dataclass(frozen=True)
class BoardQuery:
    """What somebody asks for; empty: all."""

    q: str = ""
    """Text that name, owner, source or reason hold."""
    owner: str = ""
    tier: str = ""
    source: str = ""
    state: str = ""
    order: str = "trouble"
    page: int = 1
    """From 1."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "BoardQuery":
        """From the parameters of an address. What is no order or page is taken for the first."""
        named = {name: values.get(name, "").strip()[:100] for name in ("q", "owner", "tier", "source", "state")}
        order, page = values.get("order", ""), values.get("page", "")
        number = int(page) if page.isdecimal() and len(page) < 6 else 1
        return cls(**named, order=order if order in ORDERS else "trouble", page=max(1, number))

    @property
    def is_filtered(self) -> bool:
        """Whether anything but all is asked for."""
        return bool(self.q or self.owner or self.tier or self.source or self.state)

    def address(self, page: int) -> str:
        """The same on another page, relative to the board's address."""
        values = vars(replace(self, page=page))
        return "?" + urlencode({name: value for name, value in values.items() if value not in ("", "trouble", 1)})

    def chosen(self, rows: Sequence[ModelRow]) -> list[ModelRow]:
        """The rows that are asked for, in the order that is."""
        text = self.q.casefold()
        wanted = {name: getattr(self, name) for name in ("owner", "tier", "source", "state")}
        found = [
            row
            for row in rows
            if all(not value or str(getattr(row, name)) == value for name, value in wanted.items())
            and (not text or any(text in part.casefold() for part in (row.model, row.owner, row.source, row.reason)))
        ]
        return sorted(found, key=ORDERS[self.order])

    def shown(self, rows: Sequence[ModelRow]) -> list[ModelRow]:
        """Those of its page; of a page that is none the last."""
        page = min(self.page, pages(rows))
        return list(rows[(page - 1) * PAGE : page * PAGE])


def pages(rows: Sequence[ModelRow]) -> int:
    """Number of pages, at least one."""
    return max(1, -(-len(rows) // PAGE))


def choices(rows: Sequence[ModelRow]) -> dict[str, list[str | int]]:
    """Filter → what there is to choose from."""
    return {
        "state": [state for state in STATES if any(row.state == state for row in rows)],
        "owner": sorted({row.owner for row in rows}),
        "tier": sorted({row.tier for row in rows}),
        "source": sorted({row.source for row in rows}),
    }


MARKS = {"done": "■", "stopped": "▲", "failed": "✕", "checked": "□", "": "□"}
"""End of a night → how it is drawn."""


def sparkline(row: ModelRow) -> str:
    """The course of the champion's loss, and of the safe default's, as SVG; empty for less than two nights."""
    champion = [(place, loss.champion) for place, loss in enumerate(row.losses) if loss.champion is not None]
    default = [(place, loss.safe_default) for place, loss in enumerate(row.losses) if loss.safe_default is not None]
    if len(champion) < 2:
        return ""
    values = [value for _, value in (*champion, *default)]
    low, height = min(values), (max(values) - min(values)) or 1.0
    width = max(1, len(row.losses) - 1)

    def line(points: Sequence[tuple[int, float]], css: str) -> str:
        places = " ".join(f"{72 * place / width:.1f},{18 - 16 * (value - low) / height:.1f}" for place, value in points)
        return f'<polyline class="{css}" points="{places}"/>' if len(points) > 1 else ""

    label = f"loss of the last {len(champion)} nights, {champion[0][1]:.4g} to {champion[-1][1]:.4g}"
    return (
        f'<svg class="spark" viewBox="0 0 72 20" role="img" aria-label="{label}">'
        f"{line(default, 'default')}{line(champion, 'champion')}</svg>"
    )
