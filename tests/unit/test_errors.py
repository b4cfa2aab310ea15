"""What a message quotes is shown on one line, harmlessly, and cut where it has no end."""

import pytest

from tiltyard.errors import LONGEST, BadInput, Fenced, Stopped, shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("There is no model 'a\nb'; mend it.\n", "There is no model 'a b'; mend it."),
        ("a\r\n  b\u2028c\x85d", "a b c d"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egnp.exe\0", "\\u202egnp.exe\\x00"),
        ("half \ud800", "half \\ud800"),
        ("Größe in m², 日付, 🚲, it's  so", "Größe in m², 日付, 🚲, it's  so"),
        ("", ""),
    ],
)
def test_a_message_is_one_harmless_line(given: str, said: str) -> None:
    for error in (BadInput(given), Fenced(given), Stopped(given, rows=1)):
        assert str(error) == said


def test_what_has_no_end_is_cut() -> None:
    assert shown(f"no '{'a' * 100_000}'; mend it.").endswith("…; mend it.") or len(shown("a" * 100_000)) < 1_000
    assert len(shown("a b " * 100_000)) == LONGEST
    path = "/" + "/".join(["folder"] * 100)
    assert shown(f"{path}:3: mend it.") == f"{path}:3: mend it.", "no path is cut"
