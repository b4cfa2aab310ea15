"""The programme of faults: what it makes of a part's report, and of a part that breaks or does not end."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tiltyard.settings import ROOT

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite>
<testcase classname="tests.flow.test_fuzz" name="test_specs"><properties><property name="cases" value="400"/>
</properties><failure message="AssertionError: 3 of 400:&#10;FUZZ_SEED=17 no sentence">text</failure></testcase>
<testcase classname="tests.flow.test_fuzz" name="test_suites"><properties><property name="cases" value="200"/>
</properties></testcase>
<testcase classname="tests.unit.test_chain" name="test_a"><error message="no server">text</error></testcase>
<testcase classname="tests.unit.test_chain" name="test_b"><skipped message="no disk"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def programme() -> Iterator[ModuleType]:
    """The benchmark, which is no part of the library."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import programme

    yield programme
    sys.path.remove(str(ROOT / "benchmarks"))


def test_a_report_of_tests_is_counted_and_says_how_to_see_a_loss_again(programme: ModuleType) -> None:
    tally = programme.of_tests(REPORT)
    assert (tally.tried, tally.held, tally.untried) == (601, 597, 1)
    assert tally.lost == [
        "FUZZ_SEED=17 python -m pytest -n 0 'tests/flow/test_fuzz.py::test_specs'",
        "python -m pytest -n 0 'tests/unit/test_chain.py::test_a'",
    ]


def test_a_part_that_breaks_and_one_that_does_not_end_are_losses(programme: ModuleType) -> None:
    def hangs(run: object) -> object:
        return programme.called([sys.executable, "-c", "import time; time.sleep(60)"], run)

    def breaks(run: object) -> object:
        raise OSError("no room")

    began = time.monotonic()
    ends = [
        programme.tried(programme.Part(name, "what", "held", 1, work), is_short=True, seed=1).tally.lost
        for name, work in (("slow", hangs), ("broken", breaks))
    ]
    assert ends == [
        ["it was not at its end after 1 s: --only slow"],
        ["it could not be tried (OSError: no room): --only broken"],
    ]
    assert time.monotonic() - began < 50


def test_what_it_asks_for_is_there(programme: ModuleType) -> None:
    """A part whose tests were renamed would try nothing, and hold."""
    outcome = programme.tried(
        programme.Part(
            "forged", "what", "held", 240, programme.Tests(("tests/unit/test_chain.py",), "killed_in_the_middle")
        ),
        is_short=True,
        seed=1,
    )
    assert (outcome.tally.tried, outcome.tally.held, outcome.tally.lost) == (1, 1, [])
    nothing = programme.Tests(("tests/unit/test_words.py",), "there_is_no_such_test")
    assert programme.tried(programme.Part("none", "what", "held", 240, nothing), is_short=True, seed=1).tally.lost
    for part in programme.PARTS:
        if isinstance(part.work, programme.Tests):
            for place in part.work.places:
                names = [place, *named(ROOT / place)]
                assert len(names) > 1, place
                assert any(word in name for word in part.work.words.split(" or ") for name in names), place


def named(place: Path) -> list[str]:
    """The tests of a file, or of every file of a folder."""
    texts = [path.read_text() for path in ([place] if place.is_file() else sorted(place.rglob("test_*.py")))]
    return [name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)]


def test_the_time_is_that_of_all_parts(programme: ModuleType) -> None:
    part = programme.Part("late", "what", "held", 60, lambda run: programme.Tally(1, 1))
    assert programme.tried(part, is_short=True, seed=1, left_s=5).tally.lost == [
        "not begun, the time is over: --only late"
    ]
    assert programme.tried(part, is_short=True, seed=1, left_s=40).tally == programme.Tally(1, 1)
