"""One thread that writes while training goes on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

Work = Callable[[], None]


class BackgroundWriter:
    """Does what is submitted in that order, one after the other, in a thread of its own.

    Submitting waits while `capacity` pieces of work are ahead, or pieces that hold `capacity_bytes` of memory, so that
    a slow store slows training down rather than filling the memory. An error ends all work but the essential, and is
    raised by `check`, by the next `submit` of work that is not essential, and by `close`.
    """

    def __init__(self, capacity: int = 4, capacity_bytes: int = 1_000_000_000):
        self._queue: queue.Queue[tuple[Work, bool, int] | None] = queue.Queue(capacity)
        self._capacity_bytes, self._held = capacity_bytes, 0
        self._done = threading.Condition()
        self._error: BaseException | None = None
        self._only_essential = False
        self._thread = threading.Thread(target=self._run, name="weightzoo-writer", daemon=True)
        self.seconds = 0.0  # spent on work so far
        self._thread.start()

    def submit(self, work: Work, *, essential: bool = False, nbytes: int = 0) -> None:
        """Queue some work, which holds `nbytes` of memory; the `essential` is done even if training is broken off.

        Work that holds more than all is allowed waits until it is alone.
        """
        if not essential:
            self.check()
        with self._done:
            self._done.wait_for(lambda: not self._held or self._held + nbytes <= self._capacity_bytes)
            self._held += nbytes
        self._queue.put((work, essential, nbytes))

    def flush(self) -> None:
        """Wait until all that was submitted is done.

        Raises:
            Exception: whatever some work raised.
        """
        done = threading.Event()
        self.submit(done.set, essential=True)
        done.wait()
        self.check()

    @property
    def failed(self) -> bool:
        """Whether some work raised an error."""
        return self._error is not None

    def check(self) -> None:
        """Raise the error of work that failed, if any did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Wait until everything is done.

        Raises:
            Exception: whatever some work raised.
        """
        self._queue.put(None)
        self._thread.join()
        self.check()

    def abandon(self, *, only_essential: bool) -> None:
        """Do what is essential, or all that is queued, and raise nothing: for when training is broken off."""
        if only_essential:
            self._only_essential = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, essential, nbytes = item
            if essential or not self._only_essential:
                start = time.perf_counter()
                try:
                    work()
                except BaseException as error:
                    self._error = self._error or error
                    self._only_essential = True
                self.seconds += time.perf_counter() - start
            del item, work  # and what they hold
            with self._done:
                self._held -= nbytes
                self._done.notify_all()
