"""When a safe default has lasted too long: nights in, tasks out."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.answered.explanation import LONGEST, ExplanationTask, Night, Stretch, checked, decide, stretch
from tiltyard.errors import BadInput

DAY = timedelta(days=1)
AFTER = timedelta(days=3)


def march(day: int) -> date:
    return date(2016, 3, 1) + (day - 1) * DAY


def nights(pattern: str) -> list[Night]:
    """A letter a night from 1 March on: d the safe default, c the champion, h half of each, - nobody was asked."""
    answers = {
        "d": {"nightly": {"safe_default": 10}},
        "c": {"nightly": {"champion": 10}},
        "h": {"nightly": {"safe_default": 5, "champion": 5}},
        "-": {},
    }
    return [Night(march(place + 1), answers[letter]) for place, letter in enumerate(pattern)]


def decided(pattern: str, *tasks: ExplanationTask):
    return decide("m", march(len(pattern)), nights(pattern), tasks, AFTER, DAY)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", None),
        ("c", None),
        ("ddc", None),
        ("h", None),  # half is not more than half
        ("d", (1, 1, 1)),
        ("cdd", (2, 3, 2)),
        ("cd-d-", (2, 4, 2)),  # a night without an answer breaks nothing, and adds nothing
        ("---", None),
    ],
)
def test_a_stretch(pattern: str, found: tuple[int, int, int] | None) -> None:
    expected = Stretch(march(found[0]), march(found[1]), found[2], 1.0) if found else None
    assert stretch(nights(pattern)) == expected


def test_the_worse_channel_counts() -> None:
    both = Night(march(1), {"nightly": {"safe_default": 9, "light": 1}, "online": {"champion": 1_000_000}})
    assert both.share == 0.9
    assert stretch([both]) == Stretch(march(1), march(1), 1, 0.9)


@pytest.mark.parametrize(
    ("pattern", "opens"),
    [("dd", False), ("ddd", True), ("cddd", True), ("dcdd", False), ("d-d", True), ("dddd", True), ("dddc", False)],
)
def test_a_task_is_opened_after_so_long(pattern: str, opens: bool) -> None:
    assert bool(decided(pattern).opens) == opens


def test_an_open_task_is_not_opened_again_and_an_answered_one_when_its_day_has_passed() -> None:
    waiting = ExplanationTask("m", march(3), march(1))
    assert decided("ddddd", waiting).opens is None
    answered = replace(waiting, until=march(5))
    assert decided("ddddd", answered).opens is None, "until the end of that day"
    assert decided("dddddd", answered).opens == ExplanationTask("m", march(6), march(1), repeats=march(3))
    again = ExplanationTask("m", march(6), march(1), repeats=march(3))
    assert decided("dddddddd", answered, again).opens is None


def test_whoever_leaves_the_safe_default_has_recovered_answered_or_not() -> None:
    task = ExplanationTask("m", march(3), march(1))
    answered = replace(task, until=march(30))
    assert decided("dddc", task).recovered == (task,)
    assert decided("dddc", answered).recovered == (answered,)
    assert decided("dddcd", replace(task, recovered=march(4))).recovered == ()


def test_nights_without_an_answer_say_nothing_of_a_task() -> None:
    task = ExplanationTask("m", march(3), march(1))
    assert decided("-----", task).recovered == ()
    assert decided("ddd--", task).recovered == ()


def test_an_answer_is_about_one_stretch() -> None:
    """The next one is asked about anew, whatever was promised; and where no audit saw the night between, it is seen."""
    answered = ExplanationTask("m", march(3), march(1), until=march(30))
    found = decided("dddcddd", answered)
    assert found.opens == ExplanationTask("m", march(7), march(5))
    assert found.recovered == (answered,)


@given(st.text(alphabet="dch-", min_size=1, max_size=12), st.integers(1, 12))
def test_a_night_audited_again_decides_the_same(pattern: str, day: int) -> None:
    day = min(day, len(pattern))
    whole, known = nights(pattern), nights(pattern[:day])
    assert decide("m", march(day), whole, (), AFTER, DAY) == decide("m", march(day), known, (), AFTER, DAY)


@given(st.text(alphabet="dch-", min_size=1, max_size=15))
def test_playing_all_nights_never_leaves_two_tasks_open(pattern: str) -> None:
    tasks: list[ExplanationTask] = []
    for day in range(1, len(pattern) + 1):
        found = decide("m", march(day), nights(pattern), tasks, AFTER, DAY)
        tasks = [replace(task, recovered=march(day)) if task in found.recovered else task for task in tasks]
        tasks += [found.opens] if found.opens else []
        assert sum(task.is_open for task in tasks) <= 1
        if pattern[day - 1] in "ch":  # somebody else answered
            assert not any(task.is_open for task in tasks)


@pytest.mark.parametrize(
    ("cause", "owner", "until", "sentence"),
    [
        (" ", "ann", "2016-03-09", "The cause is empty"),
        ("no labels", None, "2016-03-09", "The owner is empty"),
        ("no labels", "ann", "", "is no date"),
        ("no labels", "ann", "soon", "'soon' is no date"),
        ("no labels", "ann", "2016-03-04", "has passed: the last night was 2016-03-04"),
        ("no labels", "ann", "2016-09-01", "too far away"),
        ("x" * 3_000, "ann", "2016-03-09", "at most 2,000 characters"),
        (None, None, None, "The cause is empty; say why the model cannot answer. The owner is empty"),
    ],
)
def test_a_bad_answer_is_told_what_is_wrong(cause: str, owner: str, until: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        checked(cause, owner, until, march(4))


def test_a_good_answer() -> None:
    given = checked("  no labels ", "ann", str(march(4) + LONGEST), march(4))
    assert (given.cause, given.owner, given.until) == ("no labels", "ann", march(4) + LONGEST)
