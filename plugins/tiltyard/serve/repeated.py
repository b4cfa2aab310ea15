"""Requests that come again under the id that their caller gave them: done once, answered the same each time.

A caller that has heard nothing asks again, and cannot know whether it was not heard or not answered. Kept in this
process's memory, the oldest give way: a promise for seconds and minutes, not for ever.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tiltyard.serve.incoming import Rejected

MOST = 10_000
"""Answers kept."""
MOST_BYTES = 64_000_000
"""Bytes of all of them."""
LARGEST = 1_000_000
"""An answer of more bytes is not kept: it would take the place of thousands."""

T = TypeVar("T")
Key = tuple[str | None, str, str]
"""(the name of the caller's key, model, request id): callers do not know each other's ids."""


class Repeated:
    """The answers that were given, and those under way. For one event loop."""

    def __init__(self) -> None:
        self._given: OrderedDict[Key, tuple[bytes, bytes]] = OrderedDict()
        """key → (digest of the request, answer)."""
        self._bytes = 0
        self._under_way: dict[Key, tuple[bytes, asyncio.Future[bytes]]] = {}

    async def once(self, key: Key, digest: bytes, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `work` answers to the first request under `key`, to every one that repeats it; whoever comes while it is
        under way waits for it, and is refused as it is.

        Raises Rejected, 409, for another request (by its `digest`) under a key that is known.
        """
        if (given := self._given.get(key)) is not None:
            return _of_same(key, digest, given)
        if (begun := self._under_way.get(key)) is not None:
            # shielded: who no longer waits must not take the answer from those who do
            return await asyncio.shield(_of_same(key, digest, begun))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._under_way[key] = (digest, future)
        try:
            answer = await work()
        except Exception as error:
            future.set_exception(error)
            future.exception()  # nobody need wait for it
            raise
        except BaseException:
            future.cancel()
            raise
        finally:
            del self._under_way[key]
        future.set_result(answer)
        self._keep(key, digest, answer)
        return answer

    def _keep(self, key: Key, digest: bytes, answer: bytes) -> None:
        if len(answer) > LARGEST:
            return
        self._given[key] = (digest, answer)
        self._bytes += len(answer)
        while len(self._given) > MOST or self._bytes > MOST_BYTES:
            _, (_, oldest) = self._given.popitem(last=False)
            self._bytes -= len(oldest)


def _of_same(key: Key, digest: bytes, known: tuple[bytes, T]) -> T:
    if known[0] != digest:
        raise Rejected(409, f"The request id '{key[2]}' was used for another request; give every request its own.")
    return known[1]
