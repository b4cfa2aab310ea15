"""Sentences for people: their nouns, and the mark at their end."""

from tiltyard.words import counted, ended, meant


def test_one_is_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1_200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]


def test_a_question_ends_as_one() -> None:
    assert ended("There is no file leak.csv; did you mean 'leaky.csv'").endswith("'leaky.csv'?")
    assert ended("There is no file leak.csv").endswith("leak.csv.")
    assert ended("There is no column 'a'; did you mean 'b'; it has one column only").endswith("only.")


def test_the_nearest_name_is_offered_and_none_that_is_far() -> None:
    assert meant("shadw", ("shadow", "drift")) == "; did you mean shadow"
    assert meant("xyz", ("shadow", "drift")) == ""
