"""The kit of all pages: what comes from data is escaped, whatever part it stands in, and a page needs nothing else."""

from pathlib import Path

import pytest

from tiltyard.pages import kit
from tiltyard.pages.kit import Html, PageColumn

BAD = "<script>alert('x')</script>"


@pytest.mark.parametrize(
    "part",
    [
        kit.text(BAD),
        kit.joined([BAD, BAD]),
        kit.paragraph(BAD),
        kit.items([BAD]),
        kit.facts({BAD: BAD}),
        kit.table([PageColumn(BAD)], [[BAD]]),
        kit.section(BAD, BAD),
        kit.svg("", 10, 10, BAD),
        kit.figure(Html("<svg/>"), BAD, legend=BAD),
    ],
)
def test_every_part_escapes_what_it_is_given(part: Html) -> None:
    assert "<script" not in part and "&lt;script&gt;" in part
    assert kit.text(part) is part, "and is HTML then"


def test_a_part_within_a_part_is_escaped_once() -> None:
    cell = kit.paragraph("a & b")
    assert kit.table([PageColumn("", "number")], [[cell]]).count("<td class=number><p>a &amp; b</p></td>") == 1
    assert "a &amp;amp; b" not in kit.section("", cell)


def test_a_row_has_a_cell_for_every_column() -> None:
    with pytest.raises(ValueError):
        kit.table([PageColumn("one"), PageColumn("two")], [["only one"]])


def test_a_page_is_light_and_dark_and_needs_nothing_else() -> None:
    page = kit.page(BAD, [kit.section("a", kit.paragraph("b")), BAD])
    assert page.startswith("<!doctype html>") and "color-scheme: light dark" in page
    assert not any(foreign in page for foreign in ("http", "url(", "@import", "<script", "<link"))


def test_a_page_is_put_into_its_place_whole(tmp_path: Path) -> None:
    path = kit.save("new", tmp_path / "reports" / "page.html")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        kit.save("newer", path)
    assert list(path.parent.iterdir()) == [path]
