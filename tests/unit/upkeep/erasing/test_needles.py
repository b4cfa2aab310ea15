"""A name is found where it stands by itself, as it is written, as JSON writes it, and as HTML does."""

from tiltyard.upkeep.erasing.needles import Needles, is_telling


def test_a_name_stands_by_itself() -> None:
    needles = Needles(["C-4711", "7000000123", "a&b-customer", "Zoë-77-x"])
    assert needles.within(b"done: C-4711, 70000001234") == {"C-4711"}
    assert needles.within(b'{"id": 7000000123}') == {"7000000123"}
    assert needles.within(b"XC-4711 C-47110") == set()
    assert needles.within(b"<td>a&amp;b-customer</td>") == {"a&b-customer"}
    assert needles.within(b'"Zo\\u00eb-77-x"') == needles.within("Zoë-77-x".encode()) == {"Zoë-77-x"}


def test_what_is_struck_out_leaves_the_rest() -> None:
    needles = Needles(["C-4711", "C-4712"])
    assert needles.struck(b"C-4711 and C-4712, not C-47110") == b"(erased) and (erased), not C-47110"
    assert needles.struck(b"x C-4711", same_length=True) == b"x ******"
    assert needles.struck_text("of C-4711") == "of (erased)"


def test_a_short_number_is_told_by_nothing() -> None:
    assert not is_telling("4711") and not is_telling("1-2-3") and is_telling("C4711") and is_telling("12345678")
    assert Needles(["4711"]).within(b"4711") == set()
    assert Needles(["4711"]).short == {"4711"}
