"""What all pictures have in common: colours that the colour-blind tell apart, quiet axes, files whole and repeatable.

matplotlib takes a second to import: only the functions that draw do.
"""

import io
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltyard.files import whole
from tiltyard.pages.kit import Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Panel = Any
"""A matplotlib Axes, whose stubs take no dates for coordinates and no styles by name."""
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
"""Of Okabe and Ito's palette (2008), which the colour-blind tell apart."""
GREY, PALE = "#6B6B6B", "#B9C4CC"
LIMIT = "#B00020"
"""The colour of a line that must not be crossed."""
GRID, INK = "#E3E3E3", "#222222"
DASHES = (0, (4, 2))


def blank(width: float, height: float, *, dpi: int = 100) -> "Figure":
    """An empty figure of so many inches, off screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def quiet(panels: Iterable[Panel], grid: str = "y") -> None:
    """Only what carries values: a pale grid along `grid` (x or y) below the data, no frame above and to the right."""
    for axes in panels:
        axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)


def dated(axes: Panel, nights: Sized, *, fewest: int = 3, most: int = 9) -> None:
    """Dates along the axis, from `fewest` to `most`, as short as they can be said; no ticks without any night."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if not len(nights):  # a frame has no truth of its own
        axes.set_xticks([])
        return
    locator = AutoDateLocator(minticks=fewest, maxticks=most)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def svg(figure: "Figure", name: str) -> Html:
    """The picture as SVG to put into a page: text stays text, nothing random and no date is in it.

    `name`: what tells it from the page's other pictures, so that they share no ids.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    # ids are hashes of what they name, salted per picture
    with rc_context({"svg.hashsalt": f"tiltyard-{name}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    return Html(drawing[drawing.index("<svg") :].rstrip())


def save(figure: "Figure", path: Path) -> Path:
    """Write the picture, whole or not at all. `path` ends in .png or .svg. Returns `path`."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    # neither a date nor random ids in the file: the same rows give the same bytes
    with rc_context({"svg.hashsalt": "tiltyard", "svg.fonttype": "none"}), whole(path) as part:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(part, format=path.suffix.removeprefix("."), metadata=metadata)
    return path
