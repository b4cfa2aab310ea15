from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from tiltyard.errors import BadInput
from tiltyard.train import profile
from tiltyard.train.encoding import MOST, RARE, Encoding


@dataclass(frozen=True)
class Named:
    name: str
    kind: str


FEATURES = (Named("size", "numeric"), Named("is_open", "boolean"), Named("mood", "categorical"))


def frame(**columns: list) -> pd.DataFrame:
    base = {
        "size": [1.5, None, 3.0, float("inf")] * RARE,
        "is_open": [True, False, None, True] * RARE,
        "mood": ["good", "bad", None, "good"] * RARE,
    }
    return pd.DataFrame(base | columns)


def test_numbers_booleans_and_categories_become_one_column_each() -> None:
    encoded = Encoding.fit(frame(), FEATURES).transform(frame())[:4]
    nan = np.nan
    assert encoded.dtype == np.float32
    np.testing.assert_array_equal(encoded, [[1.5, 1, 0], [nan, 0, 1], [3, nan, nan], [nan, 1, 0]])


def test_a_category_that_training_did_not_see_or_seldom_saw_is_other() -> None:
    seen = frame(mood=["good"] * (4 * RARE - 1) + ["seldom"])
    encoding = Encoding.fit(seen, FEATURES)
    assert encoding.columns[2].categories == ("good",)
    assert list(encoding.transform(frame(mood=["seldom", "never", "good", None] * RARE))[:4, 2][:3]) == [1, 1, 0]


def test_only_the_most_frequent_categories_are_kept_ties_by_name() -> None:
    moods = [f"m{number:03}" for number in range(MOST + 10)] * RARE + ["zebra"] * (RARE + 1)
    values = pd.DataFrame({"mood": moods[::-1]})
    categories = Encoding.fit(values, FEATURES[2:]).columns[0].categories
    assert len(categories) == MOST
    assert categories[:3] == ("zebra", "m000", "m001")


def test_json_gives_the_same_encoding_back() -> None:
    encoding = Encoding.fit(frame(mood=["gut", "schlecht", "naïve", None] * RARE), FEATURES)
    assert Encoding.from_json(encoding.to_json()) == encoding


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "float32", "object"])
def test_every_way_pandas_holds_numbers_reads_the_same(dtype: str) -> None:
    values = pd.DataFrame(
        {"size": pd.Series([1, 2, None, 4] if dtype != "float32" else [1, 2, np.nan, 4], dtype=dtype)}
    )
    encoding = Encoding.fit(values, FEATURES[:1])
    np.testing.assert_array_equal(encoding.transform(values)[:, 0], [1, 2, np.nan, 4])


@pytest.mark.parametrize("dtype", ["boolean", "object"])
def test_every_way_pandas_holds_truth_reads_the_same(dtype: str) -> None:
    values = pd.DataFrame({"is_open": pd.Series([True, None, False], dtype=dtype)})
    np.testing.assert_array_equal(Encoding.fit(values, FEATURES[1:2]).transform(values)[:, 0], [1, np.nan, 0])


def test_a_missing_column_is_named() -> None:
    encoding = Encoding.fit(frame(), FEATURES)
    with pytest.raises(BadInput, match="lacks mood"):
        encoding.transform(frame().drop(columns="mood"))


def test_text_where_a_number_belongs_is_named() -> None:
    encoding = Encoding.fit(frame(), FEATURES)
    with pytest.raises(BadInput, match="size is numeric in this model, but the frame holds 'huge'"):
        encoding.transform(frame(size=[1, 2, "huge", 4] * RARE))


def test_no_rows_are_no_rows() -> None:
    assert Encoding.fit(frame(), FEATURES).transform(frame().head(0)).shape == (0, 3)


@pytest.mark.parametrize("mark", [-3.4028e38, float(np.finfo(np.float32).min), -1.7e308, 1e31, float("-inf")])
def test_a_mark_for_no_data_is_no_number(mark: float) -> None:
    values = frame(size=[1e30, mark, None, 3.0] * RARE)
    nan = np.float32("nan")
    encoded = Encoding.fit(values, FEATURES).transform(values)[:4, 0]
    np.testing.assert_array_equal(encoded, np.array([1e30, nan, nan, 3], dtype=np.float32))
    cells = profile.cut(values["size"], numeric=True)
    assert profile.count(cells, values["size"])[-1] == 2 * RARE, "the night counts it as missing, too"
