import asyncio
import errno
import fcntl
import gc
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import lmdb
import pandas as pd
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.conftest import make_settings
from tests.lakes import FEATURES, SPINES, instant, small_spec
from tests.lakes import fill as fill_lake
from tests.servers import Drip, RedisServer
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, Unavailable
from tiltyard.lake import qualified
from tiltyard.online import check, fill, lmdb_header, lmdb_store, lookup, redis_store
from tiltyard.online import store as store_module
from tiltyard.online.connection import connect
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.store import Damaged, FeatureRow, Store, TableNote, table_note
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings
from tiltyard.tables import Table

VIEW = "ftr_shop__state"
PLAN = lookup.LookupPlan(
    entity="visit_id", spine="spn_visit", other_keys=("shop_id",),
    views=(("ftr_visit__what", "visit_id"), (VIEW, "shop_id")), max_age_s=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no Redis that is away."""
    monkeypatch.setattr(redis_store, "READ_S", 5.0)


@pytest.fixture(params=["embedded", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[Store]:
    url = redis_server.url if request.param == "redis" else None
    opened = connect(Settings(home=tmp_path, online_url=url))
    yield opened
    opened.close()


@pytest.fixture
def table() -> str:
    """A table that no other test has: the Redis is shared."""
    return f"ftr_shop__{uuid.uuid4().hex[:8]}"


def row(event: float, available: float | None = None, size: float | None = 1.0) -> FeatureRow:
    return FeatureRow({"size": size, "mood": "calm", "is_open": True}, event, event if available is None else available)


def test_a_row_gives_way_only_to_one_that_wins(store: Store, table: str) -> None:
    assert store.put(table, [("s", row(5)), ("t", row(5))]) == 2
    assert store.put(table, [("s", row(5)), ("t", row(4, 9))]) == 0  # a repetition; an earlier event known later
    assert store.put(table, [("s", row(5, 6)), ("t", row(7))]) == 2  # a correction; a later event
    assert store.put(table, [("s", row(5, 6, 0.5)), ("t", row(7, size=2.0))]) == 1  # of a full tie the greatest
    assert store.get([(table, "s"), (table, "t"), (table, "u")]) == [row(5, 6), row(7, size=2.0), None]
    assert store.put(table, [("s", row(5, 6, None))]) == 0
    assert store.put(table, [("s", row(5, 6, None))], settled=True) == 1  # what the lake says of its own row counts
    assert store.get([(table, "s")]) == [row(5, 6, None)]


def test_values_come_back_as_the_encoding_reads_them(store: Store, table: str) -> None:
    values = {
        "size": 0.1 + 0.2,
        "big": 1e300,
        "count": 3.0,
        "mood": "señor \x00 \N{SNOWMAN}",
        "is_open": False,
        "no": None,
    }
    store.put(table, [("s", FeatureRow(values, 1456.123456, 1456.654321))])
    (stored,) = store.get([(table, "s")])
    assert stored == FeatureRow(values, 1456.123456, 1456.654321)
    assert [type(value) for value in stored.values.values()] == [float, float, float, str, bool, type(None)]


def test_any_text_is_a_key(store: Store, table: str) -> None:
    keys = ["", " ", "a\x00b", "é" * 5_000, "é" * 5_001, "\ud800", "x" * 399, "x" * 401]
    store.put(table, [(key, row(number)) for number, key in enumerate(keys)])
    assert store.get([(table, key) for key in keys]) == [row(number) for number in range(len(keys))]
    assert store.get([(table + "x", "a"), (table, "a")]) == [None, None]


def test_notes_and_forgetting(store: Store, table: str) -> None:
    second = f"{table}_b"
    store.put(table, [(f"s{number}", row(number)) for number in range(50)])
    store.put(second, [("s1", row(1))])
    assert store.prune(table, 30) == 30
    assert store.get([(table, "s29"), (table, "s30"), (second, "s1")]) == [None, row(30), row(1)]
    assert store.prune(table, float("inf")) == 20
    assert store.read_note(table, TableNote) is None
    note = TableNote(as_of=1.5, columns={"size": "numeric"}, pruned=0.5)
    store.write_note(table, note)
    assert store.read_note(table, TableNote) == note


def test_who_is_forgotten_leaves_no_byte_and_the_others_stay(store: Store, table: str, tmp_path: Path) -> None:
    store.put(table, [(f"C-{number:06d}", row(number)) for number in range(2_000)])
    store.put(table, [("C-000017", row(9_000, size=17.25))])
    assert store.forget(table, ["C-000017", "C-000018", "C-999999"]) == 2
    kept = store.get([(table, "C-000017"), (table, "C-000019")])
    assert kept[0] is None and kept[1] == row(19)
    for path in tmp_path.rglob("data.mdb"):
        content = path.read_bytes()
        assert b"C-000017" not in content and b"17.25" not in content and b"C-000019" in content
    assert store.put(table, [("C-000020", row(9_000))]) == 1, "it is written to as before"
    assert store.forget(table, ["C-000017"]) == 0


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> LmdbStore:
    return LmdbStore(tmp_path_factory.mktemp("shelf"))


few = st.integers(0, 3)
rows = st.tuples(st.sampled_from("ab"), few, few, st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 1.0])))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(rows, max_size=8), max_size=4))
def test_whatever_the_order_the_newest_row_is_held(shelf: LmdbStore, batches: list[list[tuple]]) -> None:
    table = uuid.uuid4().hex
    for batch in batches:
        shelf.put(table, [(key, row(event, available, size)) for key, event, available, size in batch])
    all_rows = [drawn for batch in batches for drawn in batch]
    for key in "ab":
        best = max(
            (
                (event, available, size is not None, size or 0.0, size)
                for name, event, available, size in all_rows
                if name == key
            ),
            default=None,
            key=lambda rank: rank[:4],
        )
        assert shelf.get([(table, key)]) == [best and row(best[0], best[1], best[4])]


def test_many_write_at_once_and_the_winner_is_held(store: Store, table: str) -> None:
    def write(first: int) -> None:
        for number in range(first, 40, 4):
            store.put(table, [(f"s{key}", row(number)) for key in range(20)])

    writers = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.get([(table, f"s{key}") for key in range(20)]) == [row(39)] * 20


WRITER = """
import sys
from pathlib import Path
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.store import FeatureRow
store, number = LmdbStore(Path(sys.argv[1])), 0
while True:
    number += 1
    store.put("t", ((f"s{key}", FeatureRow({"size": float(number)}, number, number)) for key in range(300)))
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_batches(tmp_path: Path) -> None:
    reader = LmdbStore(tmp_path / "online")
    assert reader.get([("t", "s1")]) == [None]
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "online")], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout
            done = [int(writer.stdout.readline()) for _ in range(5)][-1]
            writer.kill()
        times = {stored.event_time for stored in reader.get([("t", f"s{key}") for key in range(300)]) if stored}
        assert len(times) == 1  # one batch, all of it
        assert times.pop() >= done


def test_a_store_that_does_not_open_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("not a folder")
    store = connect(Settings(home=tmp_path))
    with pytest.raises(Unavailable, match=r"does not answer .* tiltyard online"):
        store.get([("t", "s")])


@pytest.mark.parametrize(
    "url",
    [
        "postgres://here",
        "redis:/here",
        "redis://:pass/word@here:6379/0",
        "redis://:pass?word@here:6379/0",
        "redis://:pass/@here:6379/pass/",
        "redis://:pass@here:6379/0?health_check_interval=pass/",
        "redis://:pass@here:6379/0?socket_timeout=abc",
        "redis://:pass@here:6379/0?foo=1",
        "redis://:pass@here:6379/0?decode_responses=true",
        "redis://:pass@here:6379/0?credential_provider=x",
        "redis://:pass@here:6379/0?ssl_cert_reqs=none",
        "redis://:pass@here:6379/abc",
        "redis://:pass@here:6379/0/1",
        "redis://:pass@here:6379/0#1",
        "redis://:pass@here:99999/0",
        "redis://:pass@he re:6379/0",
        "redis://:pass@he%00re:6379/0",
        "redis://:pass@\0here:6379",
        "redis://:pass@[::1:6379",
        f"redis://:pass@{'a' * 64}:6379",
        "rediss://:pass@here:6379/0?ssl_cert_reqs=bad",
        "unix:///tmp/redis.sock?db=x",
        "unix:///tmp/redis%00.sock?db=1",
    ],
)
def test_what_is_no_address_of_a_redis_is_refused_and_not_quoted(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadInput, match="redis://:password@host") as caught:
        connect(Settings(home=tmp_path, online_url=SecretStr(url)))
    assert "pass/" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1",
        "redis://me:p%2Fa%3Fs%23s@127.0.0.1:1/3?socket_timeout=0.5&health_check_interval=10&client_name=me",
        "redis://[::1]:1/",
        "redis://nowhere.invalid:1/0",
        "redis://:ge%ZZheim@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?socket_timeout=-1",
        "redis://127.0.0.1:1/0?socket_timeout=nan",
        "redis://127.0.0.1:1/0?socket_connect_timeout=1e300",
        "redis://127.0.0.1:1/0?max_connections=0",
        "rediss://127.0.0.1:1/0?ssl_cert_reqs=none&ssl_ca_certs=/nowhere",
        "rediss://127.0.0.1:1/0?ssl_ciphers=none",
        "unix:///nowhere/a%20redis.sock?db=1",
        f"unix:///{'a' * 200}",
    ],
)
def test_an_address_of_a_redis_that_is_not_there_is_an_answer_for_all_who_ask(tmp_path: Path, url: str) -> None:
    store = connect(Settings(home=tmp_path, online_url=SecretStr(url)))
    places = [("t", "s")]
    with pytest.raises(Unavailable):
        store.get(places)
    store._away_until = 0.0  # type: ignore[attr-defined]

    async def ask() -> None:
        try:
            await store.aget(places, asyncio.get_running_loop().time() + 1)
        finally:
            await store.aclose()

    with pytest.raises(Unavailable):
        asyncio.run(ask())
    with pytest.raises(Unavailable):
        store.put("t", [("s", row(1))])
    store.close()


# -- looking up ---------------------------------------------------------------------------------------------


def filled(store: Store) -> Store:
    store.put(
        "spn_visit",
        [("v", FeatureRow({"shop_id": "s"}, 1000.0, 1000.0)), ("w", FeatureRow({"shop_id": None}, 1000.0, 1000.0))],
    )
    store.put("ftr_visit__what", [("v", FeatureRow({"what": "shoes"}, 1000.0, 1000.0))])
    store.put(VIEW, [("s", FeatureRow({"size": 3.0}, 950.0, 960.0)), ("t", FeatureRow({"size": 4.0}, 800.0, 800.0))])
    return store


def test_a_lookup_finds_the_other_keys_and_says_which_rows_it_used(store: Store) -> None:
    filled(store)
    whole = lookup.find(store, PLAN, {"visit_id": "v"}, 1010.0)
    assert whole.values == {"what": "shoes", "size": 3.0}
    assert whole.views == {
        "ftr_visit__what": ["v", "1970-01-01T00:16:40+00:00", "1970-01-01T00:16:40+00:00"],
        VIEW: ["s", "1970-01-01T00:15:50+00:00", "1970-01-01T00:16:00+00:00"],
    }
    given = lookup.find(store, PLAN, {"visit_id": "v", "shop_id": "t"}, 1010.0)
    assert (given.values, given.stale, given.missing) == ({"what": "shoes"}, (VIEW,), ())  # the given key, too old
    early = lookup.find(store, PLAN, {"visit_id": "v"}, 999.0)
    assert (early.values, early.missing) == ({}, ("ftr_visit__what", VIEW))  # nothing of it was known
    for keys in ({"visit_id": "w"}, {"visit_id": "unknown"}, {}):
        assert lookup.find(store, PLAN, keys, 1010.0).missing == ("ftr_visit__what", VIEW)
    assert lookup.find(store, PLAN, {"shop_id": "s"}, 1010.0).values == {"size": 3.0}


def test_what_is_not_held_of_an_entity_that_is_known_is_told_apart(store: Store) -> None:
    filled(store)
    store.put("spn_visit", [("alone", FeatureRow({"shop_id": None}, 1000.0, 1000.0))])
    store.put("spn_visit", [("new", FeatureRow({"shop_id": "opened today"}, 1000.0, 1000.0))])
    absent = {
        keys: lookup.find(store, PLAN, dict(zip(("visit_id", "shop_id"), keys, strict=False)), 1010.0).absent
        for keys in (("alone",), ("new",), ("v", "t"), ("v", "opened today"), ("v",), ("unknown",))
    }
    both = ("ftr_visit__what", VIEW)
    assert absent == {
        ("alone",): both, ("new",): both, ("v", "t"): (), ("v", "opened today"): (VIEW,), ("v",): (), ("unknown",): (),
    }  # fmt: skip
    for keys in ({"visit_id": "alone"}, {"visit_id": "v"}):
        assert lookup.find(store, PLAN, keys, 999.0).absent == ()  # it was not known by then, or a row has come since


def test_a_view_is_up_to_date_for_its_max_feature_age(store: Store) -> None:
    store.write_note(table_note(VIEW), TableNote(as_of=1000.0, columns={"size": "numeric"}))
    assert lookup.nulls(store, [PLAN], 1100.0) == {VIEW: {"size": None}}
    assert lookup.nulls(store, [PLAN], 1101.0) == {}
    lasting = replace(PLAN, max_age_s=None)
    assert lookup.nulls(store, [lasting], 1101.0) == {VIEW: {"size": None}}
    for plans in ([PLAN, lasting], [lasting, PLAN]):  # whoever asks for less may not decide for who asks for more
        assert lookup.nulls(store, plans, 1101.0) == {}


def test_many_at_once_are_each_as_alone(store: Store) -> None:
    filled(store)
    questions = [
        ({"visit_id": visit, **shop}, at)
        for visit in ("v", "w", "x")
        for shop in ({}, {"shop_id": "s"}, {"shop_id": "t"})
        for at in (900.0, 1010.0, 5000.0)
    ]
    together = asyncio.run(lookup.afind_many(store, PLAN, questions))
    assert together == [lookup.find(store, PLAN, keys, at) for keys, at in questions]


def test_without_redis_a_process_serves_what_it_saw_until_it_is_too_old(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(redis_store, "PAUSE_S", 0.0)
    server = RedisServer(tmp_path)
    server.start()
    store = filled(connect(Settings(home=tmp_path, online_url=server.url)))
    keys = {"visit_id": "v"}

    async def story() -> None:
        before = await lookup.afind(store, PLAN, keys, 1010.0)
        server.kill()
        assert await lookup.afind(store, PLAN, keys, 1010.0) == before
        assert lookup.find(store, PLAN, keys, 1010.0) == before
        assert (await lookup.afind(store, PLAN, keys, 1070.0)).stale == (VIEW,)
        with pytest.raises(Unavailable):
            await lookup.afind(store, PLAN, {"shop_id": "t"}, 1010.0)  # never asked for here
        with pytest.raises(Unavailable, match="start Redis"):
            store.put(VIEW, [("t", row(1))])
        server.start()
        store.put(VIEW, [("t", FeatureRow({"size": 5.0}, 1000.0, 1000.0))])
        assert (await lookup.afind(store, PLAN, {"shop_id": "t"}, 1010.0)).values == {"size": 5.0}

    try:
        asyncio.run(story())
    finally:
        server.kill()


def test_a_redis_that_answers_slowly_counts_as_away(redis_server: RedisServer, tmp_path: Path, monkeypatch) -> None:
    """Its answers come in pieces, each in time: what counts is how long all of them take."""
    with Drip(redis_server.port).open() as drip:
        store = filled(connect(Settings(home=tmp_path, online_url=f"redis://127.0.0.1:{drip.port}/0")))

        async def story() -> None:
            before = await lookup.afind(store, PLAN, {"visit_id": "v"}, 1010.0)
            monkeypatch.setattr(store, "read_s", 0.2)
            drip.pause_s = 0.15
            began = time.monotonic()
            assert await lookup.afind(store, PLAN, {"visit_id": "v"}, 1010.0) == before
            assert 0.1 < time.monotonic() - began < 0.6  # whole, the answer takes over a second
            assert store._away_until > began
            drip.pause_s = 0.0
            monkeypatch.setattr(store, "read_s", 5.0)
            await asyncio.sleep(2.5)  # the rest of the late answer would be there by now
            assert (await lookup.afind(store, PLAN, {"shop_id": "t"}, 810.0)).values == {"size": 4.0}

        asyncio.run(story())


def test_the_way_of_a_request_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import json, sys
from pathlib import Path
from tiltyard.online import lookup
from tiltyard.online.connection import connect
from tiltyard.settings import Settings
store = connect(Settings(home=Path({str(tmp_path)!r})))
lookup.find(store, lookup.LookupPlan("a_id", "spn_a", (), (("ftr_a__b", "a_id"),), 9), {{"a_id": "x"}}, 1.0)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {name.split(".")[0] for name in json.loads(loaded)} & {
        "pandas",
        "duckdb",
        "sqlalchemy",
        "redis",
    }


# -- a store that is damaged, full, locked or of another version -----------------------------------------------


def broken(folder: Path, how: str) -> None:
    """Damage the store in a folder."""
    data = folder / "data.mdb"
    if how == "cut off":
        os.truncate(data, 3 * 4096)
    elif how == "no store":
        data.write_bytes(b"no store" * 4096)
    elif how == "overwritten":  # all but the two pages that say where the others are
        with data.open("rb+") as file:
            file.seek(2 * 4096)
            file.write(b"\xff" * (data.stat().st_size - 2 * 4096))


@pytest.mark.parametrize("how", ["cut off", "no store", "overwritten"])
def test_a_damaged_store_says_so_and_is_made_anew_under_those_who_use_it(tmp_path: Path, how: str) -> None:
    many = [(f"s{number}", row(number)) for number in range(2_000)]
    LmdbStore(tmp_path / "whole").put("t", many)
    folder = tmp_path / "online"
    folder.mkdir()
    shutil.copy(tmp_path / "whole" / "data.mdb", folder)
    broken(folder, how)
    reader, writer = LmdbStore(folder), LmdbStore(folder)
    for work in (lambda: reader.get([("t", "s1")]), lambda: writer.put("t", [("s1", row(9_000))])):
        with pytest.raises(Damaged, match="tiltyard online makes it anew"):
            work()
        reader._retry_at = writer._retry_at = 0.0
    writer.clear()
    assert writer.put("t", many) == len(many)
    reader.read_note("table/t", TableNote)  # a look at a note is where a reader sees that the file is another one
    assert reader.get([("t", "s1")]) == [row(1)]


LAST_PAGE, FORMAT, PAGE_BYTES = 136, 20, 40
"""Where a header says it: number of the last page (8 bytes), format (4), bytes of a page (4)."""


def flipped(data: Path, place: int, bit: int, pages: tuple[int, ...] = (0, 4096)) -> None:
    """Flip a bit of a store's header, in both of its pages or in one."""
    content = bytearray(data.read_bytes())
    for page in pages:
        content[page + place + bit // 8] ^= 1 << bit % 8
    data.write_bytes(content)


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    child = os.fork()  # LMDB opens a file once per process, and this one is copied
    if child == 0:
        try:
            LmdbStore(folder).put("t", [(f"s{number}", row(number)) for number in range(2_000)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return folder


@pytest.mark.parametrize(
    ("place", "bits"), [(LAST_PAGE, range(8, 64)), (FORMAT, range(32)), (PAGE_BYTES, range(32))], ids=str
)
def test_a_header_that_nobody_wrote_is_damage_and_no_number_of_it_is_believed(
    tmp_path: Path, whole_store: Path, place: int, bits: range
) -> None:
    for bit in bits:
        folder = tmp_path / str(bit)
        shutil.copytree(whole_store, folder)
        data = folder / "data.mdb"
        size = data.stat().st_size
        flipped(data, place, bit)
        store = LmdbStore(folder)
        with pytest.raises(Damaged, match="tiltyard online makes it anew"):
            store.get([("t", "s1")])
        assert data.stat().st_size == size
        store.clear()
        assert store.put("t", [("s1", row(1))]) == 1
        assert store.get([("t", "s1")]) == [row(1)]


def test_a_file_of_another_version_is_left_alone_unless_a_note_says_whose_it_is(
    tmp_path: Path, whole_store: Path
) -> None:
    for bit in (0, 4, 31):  # bit 1 makes it a format that LMDB has, and whose header looks otherwise
        for note in (None, "LMDB 0.8\n", "\xff"):
            folder = tmp_path / f"{bit}-{note!r}".encode().hex()
            shutil.copytree(whole_store, folder)
            assert lmdb_header.is_ours(folder)
            flipped(folder / "data.mdb", FORMAT, bit)
            if note is None:
                (folder / "version").unlink()
            else:
                (folder / "version").write_text(note, "latin-1")
            with pytest.raises(Unavailable, match="install that one") as caught:
                LmdbStore(folder).get([("t", "s1")])
            assert not isinstance(caught.value, Damaged)


def test_a_file_whose_two_headers_disagree_is_no_other_version(tmp_path: Path, whole_store: Path) -> None:
    for page in (0, 4096):
        folder = tmp_path / str(page)
        shutil.copytree(whole_store, folder)
        (folder / "version").unlink()
        flipped(folder / "data.mdb", FORMAT, 4, (page,))
        with pytest.raises(Damaged):
            LmdbStore(folder).get([("t", "s1")])


def test_a_whole_file_never_ends_before_its_last_page(tmp_path: Path) -> None:
    """Whatever is written, written over in one transaction and deleted: large rows lie on pages of their own."""
    store = LmdbStore(tmp_path / "online")

    def sized(size: int, event: float) -> FeatureRow:
        return FeatureRow({"a": "x" * size}, event, event)

    batches = [
        [(f"s{number}", sized(size, size)) for number in range(100) for size in sizes]
        for sizes in ([9_000], [10, 9_001, 30_000], [30_001, 30_002])
    ]
    for batch in batches:
        store.put("t", batch)
    store.put("u", batches[1])
    store.prune("t", 30_002)
    store.prune("u", math.inf)
    data = tmp_path / "online" / "data.mdb"
    environment = store._open()
    assert (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] <= data.stat().st_size
    header = lmdb_header.read(data)
    assert header is not None
    assert header.fault is None


def test_every_error_of_lmdb_is_a_store_that_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [kind for kind in vars(lmdb).values() if isinstance(kind, type) and issubclass(kind, lmdb.Error)]
    assert len(kinds) > 20
    store = LmdbStore(tmp_path / "online")
    store.put("t", [("s", row(1))])

    class Fails:
        def __init__(self, kind: type[Exception]) -> None:
            self.kind = kind

        def begin(self, **_: bool) -> None:
            raise self.kind("so it says")

    for kind in [*kinds, SystemError]:
        monkeypatch.setattr(store, "_open", lambda kind=kind: Fails(kind))
        monkeypatch.setattr(store, "_environment", None)
        for work in (
            lambda: store.get([("t", "s")]),
            lambda: store.put("t", [("s", row(2))]),
            lambda: store.prune("t", 1.0),
            lambda: store.read_note("n", TableNote),
            lambda: store.write_note("n", TableNote(as_of=1.0, columns={})),
        ):
            with pytest.raises(Unavailable, match=r"^The online store in .*[;,] .*\.$"):
                work()


def test_what_is_in_the_way_says_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LmdbStore(tmp_path / "online")
    for error, way_out in (
        (lmdb.MapFullError(), "max_feature_age"),
        (lmdb.DiskError(), "make room"),
        (OSError(errno.ENOSPC, "full"), "make room"),
        (lmdb.VersionMismatchError(), "install that one"),
    ):
        unavailable = store._unavailable(error)
        assert way_out in str(unavailable)
        assert not isinstance(unavailable, Damaged)  # nothing that can still be read is thrown away
    monkeypatch.setattr(lmdb_store, "WRITE_S", 0.2)
    store.put("t", [("s", row(1))])
    with (tmp_path / "online" / "writing.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a writer that hangs
        with pytest.raises(Unavailable, match="end it"):
            store.put("t", [("s", row(2))])
        assert store.get([("t", "s")]) == [row(1)]
    assert store.put("t", [("s", row(2))]) == 1


@pytest.mark.parametrize(
    "content",
    [
        b'{"half',
        b'"abc"',
        b"[null,null,null]",
        b'[{},"x","y"]',
        b'{"a":1,"b":2,"c":3}',
        b"[[],1,1]",
        b"[{},1]",
        b"[{},1,1,1]",
        b"[{},null,1]",
        b"[{},1e300,1]",
        b"[{},1,-1e300]",
        b"[{},253402300799.5,1]",
        b"7",
    ],
)
def test_a_row_that_cannot_be_read_is_no_answer_and_gives_way(
    store: Store, table: str, redis_server: RedisServer, content: bytes
) -> None:
    store.put(table, [("s", row(5)), ("t", row(5))])
    if isinstance(store, LmdbStore):
        store._writing(lambda writing: writing.put(lmdb_store._address(table, "s"), content))
    else:
        redis.Redis.from_url(redis_server.url).hset(f"online/{table}", "s", content)
    with pytest.raises(Damaged, match="--afresh"):
        store.get([(table, "s")])
    assert store.get([(table, "t")]) == [row(5)]
    assert store.put(table, [("s", row(1))]) == 1
    assert store.get([(table, "s")]) == [row(1)]
    store.clear()
    assert store.get([(table, "s"), (table, "t")]) == [None, None]


def test_any_row_that_is_written_is_read(store: Store, table: str) -> None:
    """The first and the last instant that anybody may give a row, which the lake and a stream hold it to."""
    for seconds in (store_module.EARLIEST, math.nextafter(store_module.LATEST, 0)):
        edge = row(seconds, seconds)
        store.put(table, [("s", edge)])
        assert store.get([(table, "s")]) == [edge]
        assert lookup.iso(seconds)


@pytest.mark.parametrize(
    "damage",
    [{"as_of": 1e300}, {"as_of": "x"}, {"pruned": -1e300}, {"columns": {"a": "nonsense"}}, {"snapshot": -1}, []],
    ids=str,
)
def test_a_note_that_nobody_wrote_is_damage(
    store: Store, table: str, redis_server: RedisServer, damage: dict[str, object] | list[object]
) -> None:
    note = TableNote(as_of=1.0, columns={"a": "numeric"})
    store.write_note(table, note)
    assert store.read_note(table, TableNote) == note
    content = json.dumps(note.to_json() | damage if isinstance(damage, dict) else damage).encode()
    if isinstance(store, LmdbStore):
        store._writing(lambda writing: writing.put(lmdb_store._note_address(table), content))
    else:
        redis.Redis.from_url(redis_server.url).hset("online", table, content)
    with pytest.raises(Damaged, match="TableNote that cannot be read"):
        store.read_note(table, TableNote)


def test_a_column_of_another_kind_since_is_no_error(store: Store, table: str) -> None:
    """A tie of times is decided by the values, of whatever kinds."""
    rows = [FeatureRow({"a": value}, 1.0, 1.0) for value in (None, True, 2.0, "x")]
    for lesser, greater in itertools.pairwise(rows):
        assert store.put(table, [("s", greater)]) == 1
        assert store.put(table, [("s", lesser)]) == 0
    store.clear()


def test_a_child_process_opens_the_store_for_itself(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "online")
    store.put("t", [("s", row(1))])
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if store.put("t", [("s", row(2))]) == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get([("t", "s")]) == [row(2)]


def connections(server: RedisServer) -> int:
    """Of clients to a server, without this one's own."""
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


def test_a_redis_store_that_is_closed_leaves_no_connection_open(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        store = filled(connect(Settings(home=tmp_path, online_url=server.url)))
        keys = {"visit_id": "v"}

        async def story() -> None:
            await lookup.afind(store, PLAN, keys, 1010.0)
            assert connections(server) == 3  # one to write, one to read, one of this loop
            await store.aclose()

        lookup.find(store, PLAN, keys, 1010.0)
        asyncio.run(story())
        assert connections(server) == 0
        # closed from another thread than the loop's; and a store that is used again opens again
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        late = asyncio.run_coroutine_threadsafe(lookup.afind(store, PLAN, keys, 1010.0), loop).result(10)
        assert late.values == {"what": "shoes", "size": 3.0}
        assert connections(server) == 1
        store.close()
        assert connections(server) == 0
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    finally:
        server.kill()


def test_loops_that_are_gone_leave_no_clients(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        store = filled(connect(Settings(home=tmp_path, online_url=server.url)))
        for _ in range(5):
            assert asyncio.run(lookup.afind(store, PLAN, {"visit_id": "v"}, 1010.0)).values
        gc.collect()
        assert len(store._clients) == 1  # type: ignore[attr-defined]
        assert connections(server) == 2  # the writer's, and the last loop's
    finally:
        server.kill()


# -- from the lake, and against it --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    folder = tmp_path_factory.mktemp("shop")
    small_spec(folder, max_feature_age="5d")
    made = make_settings(folder, postgres_url, models=folder / "models", sources=("shops",))
    with rails_module.opened(made) as opened:
        fill_lake(opened, FEATURES, [])
        fill_lake(opened, SPINES, [{"visit_id": "v", "shop_id": "s", "prediction_time": instant("2024-02-01")}])
        yield opened


def states(rails: Rails, *rows: tuple[str, str, str, int]) -> None:
    """Add rows to the view, shop, event, known, size; and publish."""
    columns = ("shop_id", "event_time", "available_at", "size")
    fill_lake(
        rails,
        FEATURES,
        [
            dict(zip(columns, (shop, instant(event), instant(available), size), strict=True))
            for shop, event, available, size in rows
        ],
    )
    publish(rails)


def publish(rails: Rails) -> None:
    rails.ledger.record_stage("", instant("2024-02-01").date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))


def sizes(rails: Rails, *shops: str) -> list[float | None]:
    rows = connect(rails.settings).get([(VIEW, shop) for shop in shops])
    return [None if row is None else row.values["size"] for row in rows]  # type: ignore[misc]


def test_the_store_follows_the_lake_night_by_night(shop: Rails) -> None:
    states(shop, ("s", "2024-02-01", "2024-02-01", 1), ("t", "2024-02-01", "2024-02-01", 1),
           ("s", "2024-02-03", "2024-02-03", 3))  # fmt: skip
    first = fill.materialise(shop, instant("2024-02-02"))
    assert first.rows == {VIEW: 2, "spn_visit": 1}
    assert sizes(shop, "s", "t") == [1, 1]
    assert fill.materialise(shop, instant("2024-02-02")).rows == {VIEW: 0, "spn_visit": 0}
    # what was in the lake already becomes known as the nights go by
    assert fill.materialise(shop, instant("2024-02-03")).rows[VIEW] == 1
    assert sizes(shop, "s", "t") == [3, 1]
    # a row that is written late under dates of the past is found all the same
    states(shop, ("t", "2024-02-02", "2024-02-02", 2), ("u", "2024-02-02", "2024-02-02", 9))
    assert fill.materialise(shop, instant("2024-02-03")).rows[VIEW] == 2
    assert sizes(shop, "s", "t", "u") == [3, 2, 9]
    # a night that is done again does not take the store back, and brings what was written since
    states(shop, ("u", "2024-02-03", "2024-02-03", 10))
    assert fill.materialise(shop, instant("2024-02-02")).rows[VIEW] == 1
    assert sizes(shop, "s", "t", "u") == [3, 2, 10]
    assert fill.materialise(shop, instant("2024-02-02"), afresh=True).rows[VIEW] == 3
    assert sizes(shop, "s", "t", "u") == [1, 2, 9]
    # a row of a stream that has not landed yet stays; one that the lake has settled gives way to it
    store = connect(shop.settings)
    day = instant("2024-02-03").timestamp()
    store.put(VIEW, [("t", row(day + 3600, size=7.0)), ("s", row(day, size=9.0))])
    fill.materialise(shop, instant("2024-02-03"))
    assert sizes(shop, "s", "t") == [3, 7]
    # rows that no model could use are forgotten in the end
    assert fill.materialise(shop, instant("2024-02-20")).rows == {VIEW: 0, "spn_visit": 0}
    assert sizes(shop, "s", "t", "u") == [None, None, None]


def test_a_store_that_is_away_holds_up_no_night(shop: Rails) -> None:
    publish(shop)
    made = shop.settings.model_copy(update={"online_url": SecretStr("redis://127.0.0.1:1/0")})
    summary = fill.fill_night(Rails(made, shop.lake, shop.ledger), instant("2024-03-05"))
    (event,) = shop.ledger.events(kind="online_unavailable")
    assert summary.unavailable is not None
    assert "start Redis" in summary.unavailable == event.detail["reason"]
    assert event.night == night_closing(instant("2024-03-05"))


def test_a_redis_that_lost_everything_is_filled_again(shop: Rails, redis_server: RedisServer) -> None:
    states(shop, ("r", "2024-03-01", "2024-03-01", 4))
    made = shop.settings.model_copy(update={"online_url": SecretStr(redis_server.url)})
    remote = Rails(made, shop.lake, shop.ledger)
    for _ in range(2):
        redis.Redis.from_url(redis_server.url).flushall()
        assert fill.materialise(remote, instant("2024-03-02")).rows[VIEW] == 1
        assert fill.materialise(remote, instant("2024-03-02")).rows[VIEW] == 0
        assert sizes(remote, "r") == [4]


def test_a_row_of_no_calendar_year_stays_in_the_lake(shop: Rails) -> None:
    states(shop, ("b", "2024-01-31", "2024-01-31", 6), ("c", "2024-01-31", "2024-01-31", 7))
    shop.lake.connection.execute(
        f"update lake.{qualified(VIEW)} set available_at = '0044-03-15 (BC) 00:00:00+00' where shop_id = 'b'"
    )
    publish(shop)
    made = shop.settings.model_copy(update={"home": shop.settings.home / "calendar"})
    rails = Rails(made, shop.lake, shop.ledger)
    for _ in range(2):
        summary = fill.fill_night(rails, instant("2024-02-02"))
        assert (summary.unavailable, summary.rebuilt) == (None, None)
        assert sizes(rails, "b", "c") == [None, 7]


def test_a_damaged_store_holds_up_no_night_and_is_filled_anew(shop: Rails, tmp_path: Path) -> None:
    states(shop, ("d", "2024-04-01", "2024-04-01", 6))
    night = instant("2024-04-02")
    made = shop.settings.model_copy(update={"home": tmp_path})
    rails = Rails(made, shop.lake, shop.ledger)
    LmdbStore(tmp_path / "online").put("t", [(f"s{number}", row(number)) for number in range(2_000)])
    for how in ("no store", "overwritten"):
        before = len(shop.ledger.events(kind=fill.REBUILT))
        broken(tmp_path / "online", how)
        summary = fill.fill_night(rails, night)
        assert summary.unavailable is None
        assert summary.rows[VIEW] >= 1
        assert summary.rebuilt is not None
        assert "is damaged" in summary.rebuilt
        (event,) = shop.ledger.events(kind=fill.REBUILT)[before:]
        assert event.detail["reason"] == summary.rebuilt
        assert sizes(rails, "d") == [6]
        assert fill.fill_night(rails, night).rebuilt is None


def test_after_a_filling_that_was_killed_the_store_is_looked_over(shop: Rails, tmp_path: Path) -> None:
    """A flipped bit may kill whoever reads it: the next filling must not read on."""
    states(shop, ("k", "2024-04-01", "2024-04-01", 6))
    rails = Rails(shop.settings.model_copy(update={"home": tmp_path}), shop.lake, shop.ledger)
    folder, night = tmp_path / "online", instant("2024-04-02")
    store = LmdbStore(folder)
    store.put("t", [(f"s{number}", row(number)) for number in range(2_000)])
    child = os.fork()
    if child == 0:
        with store.filling():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (folder / "filling").exists()
    assert fill.fill_night(rails, night).rebuilt is None  # nothing was damaged
    assert not (folder / "filling").exists()
    assert store.get([("t", "s1")]) == [row(1)]
    (folder / "filling").touch()
    with (folder / "data.mdb").open("rb+") as file:  # a page that no filling of this test reads
        file.seek(20 * 4096 + 10)
        file.write(b"\xff\xff")
    summary = fill.fill_night(rails, night)
    assert summary.rebuilt is not None
    assert "is damaged" in summary.rebuilt
    assert sizes(rails, "k") == [6]


def test_a_store_that_is_full_holds_up_no_night(shop: Rails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states(shop, ("f", "2024-04-01", "2024-04-01", 6))
    monkeypatch.setattr(lmdb_store, "MAP_BYTES", 8192)
    made = shop.settings.model_copy(update={"home": tmp_path})
    summary = fill.fill_night(Rails(made, shop.lake, shop.ledger), instant("2024-04-03"))
    assert summary.unavailable is not None
    assert "max_feature_age" in summary.unavailable
    event = shop.ledger.events(kind=fill.UNAVAILABLE)[-1]
    assert event.detail["reason"] == summary.unavailable


REQUEST = {
    "request_id": "varchar", "row": "integer", "model": "varchar", "entity_id": "varchar",
    "prediction_time": "timestamptz", "features": "varchar", "given": "varchar", "views": "varchar",
}  # fmt: skip


def asks(rails: Rails, at: datetime, size: float | None, used: tuple[str, str, str] | None, given: tuple = ()) -> str:
    """A request of visit v in the log: told `size` from the row `used` (shop, event, known)."""
    rails.lake.ensure(Table("ops.request", REQUEST))
    name = uuid.uuid4().hex
    times = None if used is None else [used[0], instant(used[1]).isoformat(), instant(used[2]).isoformat()]
    values = json.dumps({"size": size, "mood": None, "is_open": None})
    logged = pd.DataFrame(
        {
            "request_id": [name], "row": [0], "model": ["small"], "entity_id": ["v"],
            "prediction_time": [pd.Timestamp(at)], "features": [values],
            "given": [json.dumps(given)], "views": [json.dumps({VIEW: times})],
        }
    )  # fmt: skip
    rails.lake.replace("ops.request", {"request_id": name}, logged, message="drawn")
    return name


def test_what_was_served_is_held_against_the_lake(shop: Rails) -> None:
    spec = small_spec(shop.settings.models.parent, max_feature_age="5d")
    night = instant("2024-06-02")
    states(shop, ("s", "2024-05-31", "2024-06-01", 1), ("s", "2024-06-01 06:00", "2024-06-01 08:00", 2))
    assert check.check_lookups(shop, spec, night - timedelta(days=3)) is None
    asks(shop, instant("2024-06-01 07:00"), 1.0, ("s", "2024-05-31", "2024-06-01"))
    asks(shop, instant("2024-06-01 08:00"), 2.0, ("s", "2024-06-01 06:00", "2024-06-01 08:00"))
    asks(shop, instant("2024-06-01 09:00"), 1.0, ("s", "2024-05-31", "2024-06-01"))  # not brought in yet
    asks(shop, instant("2024-06-01 10:00"), 5.0, None, given=("size", "mood", "is_open"))
    quiet = check.check_lookups(shop, spec, night)
    assert {name: getattr(quiet, name) for name in check.VERDICTS} == {
        "equal": 2,
        "stale": 1,
        "ahead": 0,
        "different": 0,
    }
    assert shop.ledger.events(model="small", kind=check.DIFFERS) == []
    early = asks(shop, instant("2024-06-01 07:30"), 2.0, ("s", "2024-06-01 06:00", "2024-06-01 08:00"))
    made_up = asks(shop, instant("2024-06-01 12:00"), 8.0, ("s", "2024-06-01 11:00", "2024-06-01 11:00"))
    altered = asks(shop, instant("2024-06-01 13:00"), 3.0, ("s", "2024-06-01 06:00", "2024-06-01 08:00"))
    for _ in range(2):  # done again, it is told once
        loud = check.check_lookups(shop, spec, night)
        assert {name: getattr(loud, name) for name in check.VERDICTS} == {
            "equal": 2,
            "stale": 1,
            "ahead": 2,
            "different": 1,
        }
        (event,) = shop.ledger.events(model="small", kind=check.DIFFERS)
    assert event.night == night_closing(night)
    examples = {example["request_id"]: example for example in event.detail["examples"]}
    assert {name: example["verdict"] for name, example in examples.items()} == {
        early: "ahead",
        made_up: "ahead",
        altered: "different",
    }
    assert (
        examples[altered]["feature"],
        examples[altered]["online"]["value"],
        examples[altered]["offline"]["value"],
    ) == (
        "size",
        3.0,
        2.0,
    )
    assert examples[early]["offline"]["event_time"] == "2024-05-31T00:00:00+00:00"


def test_a_model_whose_views_are_not_built_keeps_nobody_else(shop: Rails) -> None:
    folder = shop.settings.models / "later"
    folder.mkdir()
    text = (shop.settings.models / "small" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(text.replace(VIEW, "ftr_shop__unbuilt"))
    try:
        publish(shop)
        summary = fill.materialise(shop, instant("2024-06-02"))
    finally:
        (folder / "spec.yaml").unlink()
        folder.rmdir()
    assert "ftr_shop__unbuilt" in summary.waiting["later"]
    assert set(summary.rows) == {VIEW, "spn_visit"}
