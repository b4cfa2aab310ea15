"""Keys, pace and budget: who is let in, how much, and what a restart remembers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.test_cli import tiltyard
from tiltyard.errors import BadInput
from tiltyard.serve import access as module
from tiltyard.serve.access import DAY, Access, Admitted, Count, Limits, Refused, take
from tiltyard.settings import Settings

MORNING = 20_000 * DAY + 3600.0


def made(*names: str) -> tuple[str, dict[str, bytes]]:
    keys = [module.new(name) for name in names]
    return ",".join(key.entry for key in keys), {key.name: key.key.encode() for key in keys}


def test_a_key_lets_in_its_owner_and_nobody_else() -> None:
    entries, keys = made("billing", "desk")
    access = Access(entries, now=MORNING)
    assert access.check(keys["desk"], 1, MORNING) == Admitted("desk", is_operator=False)
    assert access.check(keys["billing"], 1, MORNING) == Admitted("billing", is_operator=False)
    for presented in (
        None,
        b"",
        keys["desk"][:-1],
        keys["desk"] + b" ",
        keys["desk"].upper(),
        b"\xff\x00",
        b"a" * 10**6,
    ):
        refused = access.check(presented, 1, MORNING)
        assert isinstance(refused, Refused)
        assert refused.status == 401
        assert refused.sentence.endswith(".")


def test_every_key_is_compared_whether_or_not_one_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entries, keys = made("a", "b", "c")
    access, compared = Access(entries), []
    whole = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda one, two: (compared.append(two), whole(one, two))[1])
    for presented in (keys["a"], keys["c"], b"none of them"):
        compared.clear()
        access.who(presented)
        assert len(compared) == 3


def test_a_name_may_have_two_keys_which_share_its_limits() -> None:
    entries, keys = made("desk")
    more, others = made("desk")
    access = Access(f"{entries}, {more}", limits=Limits(budget=3), now=MORNING)
    assert access.check(keys["desk"], 2, MORNING) == Admitted("desk", is_operator=False)
    refused = access.check(others["desk"], 2, MORNING)
    assert isinstance(refused, Refused)
    assert "leaves 1" in refused.sentence
    assert access.names == ("desk",)


def test_a_key_may_be_bound_to_models_and_others_are_not() -> None:
    a, b, c = made("a", "b", "c")[0].split(",")
    known = module.parse(f"{a}:churn,sla_breach, {b},{c}:churn")
    assert [key.models for key in known] == [frozenset({"churn", "sla_breach"}), None, frozenset({"churn"})]
    assert Admitted("a", known[0].models).may_ask("churn")
    assert not Admitted("a", known[0].models).may_ask("flight_delay")
    assert Admitted("b").may_ask("flight_delay")


def test_operators_are_names_of_keys() -> None:
    entries, keys = made("desk", "prometheus")
    access = Access(entries, operators=("prometheus",))
    assert access.who(keys["prometheus"]) == Admitted("prometheus")
    assert access.who(keys["desk"]) == Admitted("desk", is_operator=False)
    with pytest.raises(BadInput, match="TILTYARD_SERVE_OPERATORS names promethus"):
        Access(entries, operators=("promethus",))


def test_where_keys_are_asked_for_there_is_a_budget_and_scores_are_rounded(tmp_path: Path) -> None:
    entries, _ = made("desk")
    keyed, open_ = Settings(home=tmp_path, serve_keys=entries), Settings(home=tmp_path)
    assert (module.budget(keyed), module.decimals(keyed)) == (module.DEFAULT_BUDGET, module.DEFAULT_DECIMALS)
    assert (module.budget(open_), module.decimals(open_)) == (None, None)
    own = Settings(home=tmp_path, serve_keys=entries, serve_budget=0, serve_decimals=15)
    assert (module.budget(own), module.decimals(own)) == (None, 15)
    assert module.access(own, MORNING).limits == Limits()
    more, _ = made("nightly")
    trusting = module.access(
        Settings(home=tmp_path, serve_keys=f"{entries},{more}", serve_trusted=("nightly",)), MORNING
    )
    assert trusting.limits_of("desk").budget == module.DEFAULT_BUDGET
    assert trusting.limits_of("nightly").budget is None
    assert isinstance(trusting.take("desk", module.DEFAULT_BUDGET + 1, MORNING), Refused)
    assert trusting.take("nightly", module.DEFAULT_BUDGET + 1, MORNING) is None


def test_wrong_keys_are_slowed_by_address_and_few_addresses_are_remembered() -> None:
    wrong = module.WrongKeys()
    assert not any(wrong.is_too_fast("10.0.0.1", 0) for _ in range(module.WRONG_AT_ONCE))
    assert wrong.is_too_fast("10.0.0.1", 0.5)
    assert not wrong.is_too_fast("10.0.0.2", 0.5)
    assert not wrong.is_too_fast("10.0.0.1", 1.5)
    for number in range(2 * module.WRONG_ADDRESSES):
        wrong.is_too_fast(str(number), 2)
    assert len(wrong._filled) == module.WRONG_ADDRESSES


def test_without_keys_all_callers_share_the_limits() -> None:
    access = Access(None, limits=Limits(rate=1, burst=2), now=MORNING)
    assert [type(access.check(None, 1, MORNING)) for _ in range(3)] == [Admitted, Admitted, Refused]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("desk", "The key 'desk' in TILTYARD_SERVE_KEYS is not followed by a SHA-256"),
        ("desk:abc", "not followed by a SHA-256"),
        (f"desk:{'g' * 64}", "not followed by a SHA-256"),
        (f"{'a' * 64}", "The key"),
        (f":{'a' * 64}", "Entry 1 of TILTYARD_SERVE_KEYS has no usable name"),
        (f"a:{'a' * 64},the desk:{'b' * 64}", "Entry 2"),
        (f"a:{'a' * 64},b:{'A' * 64}", "twice"),
        (" , ", "holds no key"),
        (f"a:{'a' * 64}:", "bound to what is no model's name"),
        (f"a:{'a' * 64}:churn,Sla Breach", "bound to what is no model's name"),
    ],
)
def test_malformed_keys_are_refused_and_digests_are_not_told(keys: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        Access(keys)
    assert sentence in str(refused.value)
    assert "b" * 64 not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"serve_rate": 0}, "TILTYARD_SERVE_RATE is 0"),
        ({"serve_rate": float("nan")}, "TILTYARD_SERVE_RATE is nan"),
        ({"serve_budget": -1}, "TILTYARD_SERVE_BUDGET is -1"),
        ({"serve_burst": 5}, "says nothing without TILTYARD_SERVE_RATE"),
        ({"serve_decimals": 16}, "TILTYARD_SERVE_DECIMALS is 16"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence):
        module.access(Settings(home=tmp_path, **values), MORNING)


def test_beyond_loopback_it_takes_a_key() -> None:
    entries, _ = made("desk")
    for host in ("0.0.0.0", "::", "", "10.0.0.7", "example.org", "localhost.example.org", "127.0.0.1.example.org"):
        with pytest.raises(BadInput, match="without API keys"):
            module.refuse_open(host, None)
        module.refuse_open(host, entries)
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"):
        module.refuse_open(host, None)


# -- limits -----------------------------------------------------------------------------------


def fresh(at: float = MORNING) -> Count:
    return Count(tokens=float("inf"), at=at)


def test_a_request_larger_than_the_burst_passes_and_is_paid_for_afterwards() -> None:
    count, limits = fresh(), Limits(rate=10, burst=20)
    assert take(count, 100, MORNING, limits) is None
    refused = take(count, 1, MORNING + 1, limits)
    assert refused is not None
    assert refused.status == 429
    assert refused.retry_after_s == 8  # 80 in debt, 10 of it paid: 71 more for one row
    assert take(count, 1, MORNING + 1 + refused.retry_after_s, limits) is None


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(-5, 20)), max_size=40),
    st.floats(0.5, 100),
    st.floats(1, 100),
)
def test_no_caller_is_faster_than_the_rate_but_for_the_burst(asked: list, rate: float, burst: float) -> None:
    """Over all of them: rows let pass ≤ burst + rate × time + the last request, whatever the clock does."""
    count, limits, now, newest, passed, last = fresh(), Limits(rate=rate, burst=burst), MORNING, MORNING, 0, 0
    moved = 0.0
    for rows, later in asked:
        now += later
        moved += max(0.0, later)
        newest = max(newest, now)
        if take(count, rows, now, limits) is None:
            passed, last = passed + rows, rows
    assert passed <= burst + rate * moved + last + 1e-6


def test_the_budget_is_a_days_and_a_refused_request_costs_nothing() -> None:
    count, limits = fresh(), Limits(budget=10)
    assert take(count, 8, MORNING, limits) is None
    refused = take(count, 3, MORNING, limits)
    assert refused is not None
    assert refused.retry_after_s == DAY - 3600
    assert take(count, 2, MORNING, limits) is None
    assert take(count, 1, MORNING, limits) is not None
    assert take(count, 10, MORNING + DAY, limits) is None


def test_the_budget_survives_a_restart_and_is_shared_by_workers(tmp_path: Path) -> None:
    entries, keys = made("desk")

    def worker(now: float = MORNING) -> Access:
        return Access(entries, limits=Limits(budget=100), folder=tmp_path / "serving", now=now)

    one, two = worker(), worker()
    assert one.check(keys["desk"], 40, MORNING) == Admitted("desk", is_operator=False)
    assert two.check(keys["desk"], 50, MORNING) == Admitted("desk", is_operator=False)
    for each in (one, two, worker()):  # the third is one that was started again
        refused = each.check(keys["desk"], 11, MORNING)
        assert isinstance(refused, Refused)
        assert "leaves 10" in refused.sentence
    assert isinstance(two.check(keys["desk"], 10, MORNING), Admitted)
    assert isinstance(worker(MORNING + DAY).check(keys["desk"], 100, MORNING + DAY), Admitted)
    assert isinstance(one.check(keys["desk"], 1, MORNING + DAY - 3601), Refused)  # its clock is before midnight still
    assert b"desk" not in (tmp_path / "serving" / "budget").read_bytes()


ASK = """
import sys
from pathlib import Path
from tiltyard.serve.access import Access, Limits, Refused
access = Access(None, limits=Limits(budget=1_000), folder=Path(sys.argv[1]), now=%s)
print(sum(not isinstance(access.check(None, 1, %s), Refused) for _ in range(900)))
"""


def test_processes_that_ask_at_once_pass_the_budget_exactly(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK % (MORNING, MORNING), str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    passed = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(passed) == 1_000


def test_a_worker_that_holds_the_count_keeps_nobody_waiting(tmp_path: Path) -> None:
    one, two = (Access(None, limits=Limits(budget=9), folder=tmp_path, now=MORNING) for _ in range(2))
    assert one._of_host is not None
    with one._of_host:
        refused = two.check(None, 1, MORNING)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.retry_after_s) == (503, 1)
    assert isinstance(two.check(None, 9, MORNING), Admitted)


def test_rows_that_were_refused_elsewhere_are_given_back(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        access = Access(None, limits=Limits(budget=9), folder=folder, now=MORNING)
        assert isinstance(access.check(None, 9, MORNING), Admitted)
        access.give_back(None, 4)
        assert isinstance(access.check(None, 5, MORNING), Refused)
        assert isinstance(access.check(None, 4, MORNING), Admitted)


@pytest.mark.parametrize("content", [b"{", b"tybudget and then something", b"\0" * 56])
def test_a_damaged_count_does_not_keep_the_service_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "budget").write_bytes(content)
    access = Access(None, limits=Limits(budget=5), folder=tmp_path, now=MORNING)
    assert access.check(None, 5, MORNING) == Admitted(None)
    assert isinstance(Access(None, limits=access.limits, folder=tmp_path, now=MORNING).check(None, 1, MORNING), Refused)


def test_a_folder_that_takes_no_files_does_not_stop_the_service(tmp_path: Path) -> None:
    (tmp_path / "serving").write_text("a file, where a folder should be")
    access = Access(None, limits=Limits(budget=5), folder=tmp_path / "serving", now=MORNING)
    assert access.check(None, 5, MORNING) == Admitted(None)
    assert isinstance(access.check(None, 1, MORNING), Refused)
    access.close()


def test_scores_are_rounded_only_when_asked_to() -> None:
    assert module.rounded(0.123456789, None) == 0.123456789
    assert module.rounded(0.123456789, 3) == 0.123
    assert module.rounded(0.9999, 2) == 1.0


# -- the command ------------------------------------------------------------------------------


def test_a_new_key_from_the_command_line_opens_the_door() -> None:
    result = json.loads(tiltyard("keys", "new", "desk", "--json").stdout)
    assert Access(result["entry"]).check(result["key"].encode(), 1, MORNING) == Admitted("desk", is_operator=False)
    shown = tiltyard("keys", "new", "desk").stdout
    assert "TILTYARD_SERVE_KEYS" in shown
    assert "ty_" in shown


def test_a_name_that_cannot_be_and_a_setting_that_cannot_be_read_end_in_a_sentence() -> None:
    refused = tiltyard("keys", "new", "The Desk")
    assert (refused.returncode, "cannot name a key" in refused.stderr) == (2, True)
    refused = tiltyard("models", TILTYARD_SERVE_RATE="quick")
    assert (refused.returncode, "TILTYARD_SERVE_RATE cannot be read" in refused.stderr) == (2, True)
    assert "Traceback" not in refused.stderr
