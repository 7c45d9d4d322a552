"""People who write or search beside what is tested."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

Act = Callable[[threading.Event], None]
"""What one of them does until the event is set."""


@dataclass
class Crowd:
    """Threads that act all the while, and can be held between two of their steps."""

    errors: list[BaseException] = field(default_factory=list)
    _steps: list[threading.Lock] = field(default_factory=list)

    @contextmanager
    def acting(self, *acts: Act) -> Iterator[None]:
        """Each acts in a thread of its own while the body runs. The first error of any is raised at its end."""
        stop = threading.Event()
        self._steps[:] = [threading.Lock() for _ in acts]
        threads = [threading.Thread(target=self._caught, args=(act, stop)) for act in acts]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            if self.errors:
                raise self.errors[0]

    def step(self, number: int) -> threading.Lock:
        """What the one of that number has during each of its steps."""
        return self._steps[number]

    @contextmanager
    def still(self, wanted: bool = True) -> Iterator[None]:
        """Nobody is in a step while the body runs, where that is wanted."""
        with ExitStack() as stack:
            for lock in self._steps if wanted else ():
                stack.enter_context(lock)
            yield

    def _caught(self, act: Act, stop: threading.Event) -> None:
        try:
            act(stop)
        except BaseException as error:  # noqa: BLE001  raised where they end
            self.errors.append(error)
