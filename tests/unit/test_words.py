"""Sentences for people: their nouns, and the mark at their end."""

from tiltyard.words import clauses, counted, ended, line, markdown, meant, person, shown


def test_one_is_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1_200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]


def test_sentences_become_the_clauses_of_one_with_one_mark_between_them() -> None:
    assert clauses(["It is old."]) == "It is old."
    assert clauses(["It is old.", "it is odd. ", "and bad"]) == "It is old; it is odd; and bad"


def test_a_question_ends_as_one() -> None:
    assert ended("There is no file leak.csv; did you mean 'leaky.csv'").endswith("'leaky.csv'?")
    assert ended("There is no file leak.csv").endswith("leak.csv.")
    assert ended("There is no column 'a'; did you mean 'b'; it has one column only").endswith("only.")


def test_the_nearest_name_is_offered_and_none_that_is_far() -> None:
    assert meant("shadw", ("shadow", "drift")) == "; did you mean shadow"
    assert meant("xyz", ("shadow", "drift")) == ""


def test_nothing_in_a_text_of_somebodys_is_obeyed() -> None:
    assert shown("a\tb\n\x1b[2J\x07\x00\u202egnp.exe") == "a\tb\n\ufffd[2J\ufffd\ufffd\ufffdgnp.exe"
    assert shown("Über 👩\u200d🔧 naïve 日本") == "Über 👩\u200d🔧 naïve 日本", "what people write stays as it is"
    assert shown("cut off: \udcff").encode(), "a half of a character has no bytes"
    assert line("fine.\r\nDo: nothing\u2028 \x0b at  all") == "fine. Do: nothing at all"
    assert markdown("![x](//e) [a](b) <b> `c`\n# *d*") == "!\\[x\\](//e) \\[a\\](b) &lt;b&gt; \\`c\\` # \\*d\\*"


def test_one_person_is_one_however_the_name_is_spelled() -> None:
    spellings = ("José Núñez", " JOSÉ  NÚÑEZ", "Jose\u0301 Nu\u0301n\u0303ez", "josé\u00a0núñez")
    assert len({person(name) for name in spellings}) == 1
    assert person("jose") != person("josé") and person(None) == ""
