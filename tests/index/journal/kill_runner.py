"""Run by test_sqlite, test_shared and test_postgres: append from several threads until killed.

It prints each call and its number as they are acknowledged.
"""

from __future__ import annotations

import sys
import threading

from earshot.errors import EarshotError
from earshot.index.journal import Remove, open_journal


def main(address: str, name: str, *how: str) -> None:
    journal = open_journal(address, "podcasts", shared="shared" in how)
    printing = threading.Lock()

    def write(thread: int) -> None:
        for number in range(1_000_000):
            call = f"{name}-{thread}-{number}"
            last = journal.append([Remove(f"{call}:{i}") for i in range(3)])
            with printing:
                print(call, last, flush=True)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except EarshotError as error:
        print(type(error).__name__, error.message, file=sys.stderr)
        sys.exit(1)
