"""A request that comes again is done once, and what is remembered is bounded."""

import asyncio

import pytest

from tiltyard.serve import repeated
from tiltyard.serve.incoming import Rejected
from tiltyard.serve.repeated import Repeated

KEY = ("ann", "steady", "one")


class Work:
    """Counts how often it was done; waits until it is let go."""

    def __init__(self, answer: bytes | Exception = b"answer") -> None:
        self.answer, self.times, self.may_end = answer, 0, asyncio.Event()

    async def __call__(self) -> bytes:
        self.times += 1
        await self.may_end.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_who_comes_while_it_is_under_way_waits_for_it() -> None:
    async def story() -> None:
        kept, work = Repeated(), Work()
        asked = [asyncio.create_task(kept.once(KEY, b"d", work)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Rejected, match="'one' was used for another request") as refused:
            await kept.once(KEY, b"other", work)
        assert refused.value.status == 409
        asked[2].cancel()  # who goes away takes nobody along
        await asyncio.sleep(0)
        work.may_end.set()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [done[0], done[1], done[3]] == [b"answer"] * 3
        assert await kept.once(KEY, b"d", work) == b"answer"
        assert work.times == 1
        for key in (("bob", *KEY[1:]), (KEY[0], "young", KEY[2]), (None, *KEY[1:])):
            await kept.once(key, b"other", work)
        assert work.times == 4

    asyncio.run(story())


def test_who_waits_is_refused_as_the_first_is_and_the_next_one_is_not() -> None:
    async def story() -> None:
        kept, work = Repeated(), Work(Rejected(429, "too fast"))
        asked = [asyncio.create_task(kept.once(KEY, b"d", work)) for _ in range(2)]
        await asyncio.sleep(0)
        work.may_end.set()
        assert await asyncio.gather(*asked, return_exceptions=True) == [work.answer] * 2
        work.answer = b"answer"
        assert await kept.once(KEY, b"d", work) == b"answer"
        assert work.times == 2

    asyncio.run(story())


def test_what_is_remembered_is_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "MOST", 5)
    monkeypatch.setattr(repeated, "MOST_BYTES", 100)
    monkeypatch.setattr(repeated, "LARGEST", 60)

    async def story() -> None:
        kept, done = Repeated(), []

        async def asked(name: str, size: int) -> None:
            async def work() -> bytes:
                done.append(name)
                return b"x" * size

            await kept.once((None, "steady", name), b"d", work)

        await asked("a", 50)
        await asked("large", 61)
        await asked("b", 50)
        await asked("a", 50)
        assert done == ["a", "large", "b"]
        await asked("large", 61)  # was not kept
        await asked("c", 1)  # and a, the oldest, goes
        await asked("a", 50)  # and b
        await asked("b", 20)
        assert done == ["a", "large", "b", "large", "c", "a", "b"]
        for name in "defgh":
            await asked(name, 1)
        assert len(kept._answers) == 5
        assert kept._bytes == sum(len(answer) for _, answer in kept._answers.values()) == 5

    asyncio.run(story())


def test_what_is_forgotten_is_done_anew() -> None:
    async def story() -> None:
        kept, work = Repeated(), Work()
        work.may_end.set()
        await kept.once(KEY, b"d", work)
        await kept.once(KEY, b"d", work)
        assert work.times == 1
        kept.forget()
        await kept.once(KEY, b"d", work)
        assert work.times == 2

    asyncio.run(story())
