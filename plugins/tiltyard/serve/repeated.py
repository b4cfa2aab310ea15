"""Requests that come again under the id that their caller gave them: done once, answered the same each time.

A caller that gets no answer asks again, and cannot know whether its request or the answer was lost. Answers are kept in
this process's memory, where the oldest give way: a promise for seconds and minutes, not for ever.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tiltyard.serve.incoming import Rejected

MOST = 10_000
"""Number of answers that are kept."""
MOST_BYTES = 64_000_000
"""Bytes of all answers that are kept."""
LARGEST = 1_000_000
"""Bytes of the largest answer that is kept: a larger one would take the place of thousands."""

T = TypeVar("T")
Key = tuple[str | None, str, str]
"""(name of the caller's API key, model, request id): callers do not know each other's ids."""


class Repeated:
    """The newest answers, and those under way. For one event loop."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Key, tuple[bytes, bytes]] = OrderedDict()
        """Key → (digest of the request, answer), the oldest first."""
        self._bytes = 0
        """Bytes of the answers in `_answers`."""
        self._under_way: dict[Key, tuple[bytes, asyncio.Future[bytes]]] = {}
        """Key → (digest of the request, its answer to come)."""

    async def once(self, key: Key, digest: bytes, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `work` answers to the first request under `key`, also to every request that repeats it. Whoever asks
        while the first is under way waits for it, and is refused when it is.

        `digest` is the request's. Raises Rejected, 409, for another request under the same key.
        """
        if (earlier := self._answers.get(key)) is not None:
            return _of_same(key, digest, earlier)
        if (waiting := self._under_way.get(key)) is not None:
            # The shield keeps a caller who stops waiting from cancelling the answer for those who still do.
            return await asyncio.shield(_of_same(key, digest, waiting))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._under_way[key] = (digest, future)
        try:
            answer = await work()
        except Exception as error:
            future.set_exception(error)
            future.exception()  # read here, so that asyncio does not complain when nobody waits for it
            raise
        except BaseException:
            future.cancel()
            raise
        finally:
            del self._under_way[key]
        future.set_result(answer)
        self._keep(key, digest, answer)
        return answer

    def forget(self) -> None:
        """Forget all answers: somebody was erased, and nobody knows here whose they are."""
        self._answers.clear()
        self._bytes = 0

    def _keep(self, key: Key, digest: bytes, answer: bytes) -> None:
        if len(answer) > LARGEST:
            return
        self._answers[key] = (digest, answer)
        self._bytes += len(answer)
        while len(self._answers) > MOST or self._bytes > MOST_BYTES:
            _, (_, oldest) = self._answers.popitem(last=False)
            self._bytes -= len(oldest)


def _of_same(key: Key, digest: bytes, earlier: tuple[bytes, T]) -> T:
    """The second of `earlier`, whose first is a request's digest. Raises Rejected where that is another one."""
    if earlier[0] != digest:
        raise Rejected(409, f"The request id '{key[2]}' was used for another request; give every request its own.")
    return earlier[1]
