"""What is asked of a label's texts."""

import pytest

from tiltyard.scaffold import asked


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        (("YES", "NO"), "YES"),
        (("nein", "ja"), "ja"),
        (("Non", "Oui"), "Oui"),
        (("0", "1"), "1"),
        (("ja", "ja, spät"), None),
        (("open", "closed"), None),
        (("ja", "nein", "?"), None),
    ],
)
def test_of_two_texts_the_yes_is_asked_for_where_they_say_it(values: tuple[str, ...], meant: str | None) -> None:
    assert asked.usual_positive(values) == meant
