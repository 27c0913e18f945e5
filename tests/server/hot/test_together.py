"""One look at the journal for all who wait for it."""

from __future__ import annotations

import asyncio
import threading

from earshot.errors import DataLoss
from earshot.server.hot.together import Together


class Journal:
    """Counts the looks, which end when they may."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_end = threading.Semaphore(0)
        self.began = threading.Semaphore(0)

    def look(self, name: str) -> int:
        self.looks += 1
        seen = self.looks
        self.began.release()
        assert self.may_end.acquire(timeout=10)
        if name == "damaged":
            raise DataLoss("entry 7 is damaged")
        return seen


def test_who_comes_while_one_looks_shares_the_next_look() -> None:
    async def main() -> None:
        journal = Journal()
        together = Together(journal.look, "looking")
        first = asyncio.create_task(together.look("mine"))
        await asyncio.to_thread(journal.began.acquire)
        late = [asyncio.create_task(together.look("mine")) for _ in range(5)]
        other = asyncio.create_task(together.look("yours"))
        await asyncio.to_thread(journal.began.acquire)
        for _ in range(3):
            journal.may_end.release()
        assert {await first, await other} == {1, 2}
        assert {await each for each in late} == {3}
        assert journal.looks == 3

    asyncio.run(main())


def test_who_gives_up_takes_nobody_along_and_all_hear_what_failed() -> None:
    async def main() -> None:
        journal = Journal()
        together = Together(journal.look, "looking")
        first = asyncio.create_task(together.look("damaged"))
        await asyncio.to_thread(journal.began.acquire)
        late = [asyncio.create_task(together.look("damaged")) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        journal.may_end.release()
        await asyncio.to_thread(journal.began.acquire)
        late[0].cancel()
        journal.may_end.release()
        answers = await asyncio.gather(first, *late, return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2 + [DataLoss] * 2

    asyncio.run(main())
