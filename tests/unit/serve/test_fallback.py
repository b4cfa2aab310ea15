"""Which tier answers. Every combination of outcomes has an answer and a reason from the closed set."""

from itertools import permutations, product

import pytest

from tiltyard.serve import fallback
from tiltyard.serve.fallback import REASONS, choose

ALL = ("champion", "previous", "light")


@pytest.mark.parametrize(
    ("outcomes", "tier", "reason"),
    [
        ({"champion": "scored", "previous": "scored"}, "champion", "in_service"),
        ({"champion": "not_loaded", "previous": "scored"}, "previous", "champion_not_loaded"),
        ({"champion": "no_score", "previous": "scored"}, "previous", "champion_no_score"),
        ({"champion": "no_score", "light": "scored"}, "light", "champion_no_score"),
        ({"champion": "not_loaded", "previous": "not_loaded"}, "safe_default", "champion_not_loaded"),
        ({}, "safe_default", "no_champion"),
    ],
)
def test_the_first_declared_tier_with_a_score_answers(outcomes, tier, reason):
    served = choose(ALL, outcomes)
    assert (served.tier, served.reason) == (tier, reason)


def test_the_declared_order_is_kept():
    assert choose(("light", "champion"), {"champion": "scored", "light": "scored"}).tier == "light"
    assert choose(("previous",), {"champion": "scored"}).tier == "safe_default"
    assert choose((), {"champion": "scored"}).reason == "no_tiers"


def test_every_combination_has_an_answer_and_a_known_reason():
    for count in range(4):
        for tiers in permutations(ALL, count):
            for outcomes in product(fallback.OUTCOMES, repeat=3):
                served = choose(tiers, dict(zip(ALL, outcomes, strict=True)))
                assert served.reason in REASONS
                assert served.tier == "safe_default" or dict(zip(ALL, outcomes, strict=True))[served.tier] == "scored"
                assert (served.reason == "in_service") == (not served.skipped and served.tier != "safe_default")


def test_an_unknown_outcome_is_an_error():
    with pytest.raises(ValueError, match="not one of"):
        choose(ALL, {"champion": "perhaps"})
