"""Work done again and again beside a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def repeating(every_s: float, work: Callable[[], object]) -> Iterator[None]:
    """Do `work` every so often, in a thread, for the length of a `with` block."""
    done = Event()

    def repeat() -> None:
        while not done.wait(every_s):
            work()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
