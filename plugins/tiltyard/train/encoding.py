"""How a frame of features becomes a matrix: float32, one column per feature, NaN where it is missing.

Numbers pass through, booleans become 0 and 1, a category becomes its place in the list of the training
frame's most frequent ones. A category that is rare in the training frame, or not in it at all, is `other`:
the last code, which has rows to learn from because the rare ones share it. The whole is plain JSON.

A number beyond `LARGEST` is missing: what lies there is no measurement but somebody's mark for "no data", like the
least number of float32 (-3.4028e38), and no model can scale by it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard.errors import BadInput

EncodedKind = Literal["numeric", "boolean", "categorical"]
MOST = 64
"""Categories kept per feature; the others are `other`."""
LARGEST = 1e30
"""The largest number that is read as one, of either sign."""
RARE = 5
"""A category with fewer training rows than this is `other`."""


class Named(Protocol):
    """What `fit` needs to know of a feature."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


def is_number(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a model reads these as numbers: neither missing, nor infinite, nor beyond LARGEST."""
    return np.abs(numbers) <= LARGEST  # of NaN it is not


@dataclass(frozen=True)
class EncodedColumn:
    """One feature and its column of the matrix."""

    name: str
    """The feature's name."""
    kind: EncodedKind
    """What its values are."""
    categories: tuple[str, ...] = ()
    """Categories with a code of their own, the most frequent first; empty of a number and of a boolean."""

    @property
    def codes(self) -> int:
        """Number of codes of a categorical column, `other` included."""
        return len(self.categories) + 1


@dataclass(frozen=True)
class Encoding:
    """How every feature of a model becomes a column."""

    columns: tuple[EncodedColumn, ...]
    """The columns of the matrix, in order."""

    @property
    def features(self) -> tuple[str, ...]:
        """The features' names, in the order of the matrix."""
        return tuple(column.name for column in self.columns)

    @property
    def codes(self) -> dict[int, int]:
        """Column of a category → how many codes it has."""
        return {place: column.codes for place, column in enumerate(self.columns) if column.kind == "categorical"}

    @classmethod
    def fit(cls, frame: pd.DataFrame, features: Iterable[Named]) -> "Encoding":
        """Learn the categories from `frame`: by frequency, ties in alphabetical order."""
        return cls(tuple(_learn(frame, feature.name, feature.kind) for feature in features))

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """(rows, features) float32. Raises BadInput when a feature is not there or is not of its kind."""
        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise BadInput(
                f"The frame lacks {', '.join(missing)}, which this model was trained on; "
                "add the column back to its feature view, or train a new version."
            )
        matrix = np.empty((len(frame), len(self.columns)), dtype=np.float32)
        for place, column in enumerate(self.columns):
            matrix[:, place] = _encode(frame[column.name], column)
        return matrix

    def to_json(self) -> str:
        """The content of encoding.json."""
        columns = [
            {"name": column.name, "kind": column.kind}
            | ({"categories": list(column.categories)} if column.kind == "categorical" else {})
            for column in self.columns
        ]
        return json.dumps({"columns": columns}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Encoding":
        """From what `to_json` has written."""
        columns = json.loads(text)["columns"]
        return cls(
            tuple(EncodedColumn(entry["name"], entry["kind"], tuple(entry.get("categories", ()))) for entry in columns)
        )


def _learn(frame: pd.DataFrame, name: str, kind: str) -> EncodedColumn:
    if kind == "numeric":
        return EncodedColumn(name, "numeric")
    if kind == "boolean":
        return EncodedColumn(name, "boolean")
    if kind != "categorical":
        raise ValueError(f"{name}: {kind!r} is not numeric, boolean or categorical")
    counts = frame[name].dropna().astype(str).value_counts()
    ranked = sorted(((-int(rows), str(value)) for value, rows in counts.items() if rows >= RARE))
    return EncodedColumn(name, "categorical", tuple(value for _, value in ranked[:MOST]))


def _encode(values: pd.Series, column: EncodedColumn) -> NDArray[np.float32]:
    if column.kind == "categorical":
        present = values.notna().to_numpy()
        codes = {value: code for code, value in enumerate(column.categories)}
        encoded = np.full(len(values), np.nan, dtype=np.float32)
        rest = len(column.categories)
        encoded[present] = [codes.get(str(value), rest) for value in values[present]]
        return encoded
    try:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        example = next(iter(values[pd.to_numeric(values, errors="coerce").isna() & values.notna()]), "?")
        raise BadInput(
            f"{column.name} is {column.kind} in this model, but the frame holds {example!r}; mend its feature view."
        ) from None
    return np.where(is_number(numbers), numbers, np.nan).astype(np.float32)
