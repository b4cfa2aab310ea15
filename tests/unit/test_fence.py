"""Fences: every claim outdates the one before, and only the newest may commit."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tiltyard.errors import Fenced
from tiltyard.rails import Rails


def test_every_claim_outdates_the_one_before(rails: Rails) -> None:
    with ThreadPoolExecutor(6) as pool:
        tokens = [fence.token for fence in pool.map(lambda _: rails.ledger.claim("key"), range(12))]

    assert sorted(tokens) == list(range(1, 13))


def test_only_the_newest_claim_on_the_same_work_is_held(rails: Rails) -> None:
    old, other = rails.ledger.claim("shadow/a/2016-04-02"), rails.ledger.claim("shadow/b/2016-04-02")
    new = rails.ledger.claim("shadow/a/2016-04-02")
    with pytest.raises(Fenced, match=r"has taken over shadow/a/2016-04-02 \(token 2, this one holds 1\)"), old.held():
        pytest.fail("an outdated claim was held")
    with new.held(), other.held():
        pass
