"""Header fields as HTTP compares them: types without regard to case, whole, and apart from their parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.serve.headers import MediaType, accepts, is_longer, media_type


@pytest.mark.parametrize(
    ("field", "name", "parameters"),
    [
        ("application/json", "application/json", {}),
        ("Application/JSON", "application/json", {}),
        (" application/json \t", "application/json", {}),
        ("application/json;", "application/json", {}),
        ("application/json;charset=utf-8", "application/json", {"charset": "utf-8"}),
        ("application/json ; Charset=UTF-8", "application/json", {"charset": "UTF-8"}),
        ('application/json; charset="utf-8"; v=1', "application/json", {"charset": "utf-8", "v": "1"}),
        (r'text/plain; a="x;\"y\", z"', "text/plain", {"a": 'x;"y", z'}),
        ("application/jsonx", "application/jsonx", {}),
        ("application/json+x", "application/json+x", {}),
        ("application/vnd.api+json", "application/vnd.api+json", {}),
    ],
)
def test_a_media_type_and_its_parameters(field: str, name: str, parameters: dict[str, str]) -> None:
    assert media_type(field) == MediaType(name, parameters)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "json",
        "application",
        "/json",
        "application/",
        "application /json",
        "application/json, text/plain",
        "application/json x",
        "application/json; charset",
        "application/json; charset=",
        'application/json; charset="utf-8',
        "application/json; charset=utf-8 latin-1",
        "appliçation/json",
    ],
)
def test_what_is_no_media_type(field: str) -> None:
    assert media_type(field) is None


@given(st.text(max_size=60))
def test_whatever_stands_there_it_is_read_or_is_none(field: str) -> None:
    media = media_type(field)
    assert media is None or media.name == media.name.lower()


@pytest.mark.parametrize(
    ("field", "is_utf_8"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/json; CHARSET=UTF8", True),
        ('application/json; charset="US-ASCII"', True),
        ("application/json; charset=latin-1", False),
        ("application/json; charset=utf-16", False),
    ],
)
def test_which_charsets_are_read_as_utf_8(field: str, is_utf_8: bool) -> None:
    media = media_type(field)
    assert media is not None
    assert media.is_utf_8 is is_utf_8


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("text/html", True),
        ("Text/HTML", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/json, text/html; q=0.5", True),
        ("application/json, text/html; q=0", False),
        ("application/json, text/html; Q=0.000", False),
        ("text/htmlx", False),
        ("application/x-text/html", False),
        ('application/json; note="text/html"', False),
        ("*/*", False),
        ("", False),
    ],
)
def test_who_asks_for_a_page(field: str, answer: bool) -> None:
    assert accepts(field, "text/html") is answer


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        (b"", False),
        (b"10", False),
        (b"11", True),
        (b"0011", True),
        (b"0" * 5000 + b"7", False),
        (b"9" * 5000, True),
        (b"-11", False),
        (b"+11", False),
        (b"1e9", False),
    ],
)
def test_a_declared_length(field: bytes, answer: bool) -> None:
    assert is_longer(field, 10) is answer
