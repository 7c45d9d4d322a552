"""How many texts a request may have: few at first, then as many as the measured time allows, and what the server has shown."""

import threading

from tasks.embedders.openai.limits import MAX_INPUTS

FIRST = 16
"""Few enough for a model on a processor that takes a second for each."""
GROWTH = 8.0
"""The most by which the next request is larger than one that has passed."""
QUICK, SLOW = 0.1, 0.5
"""Shares of the timeout: what is answered within the first lets requests grow, and what takes longer than the second makes them
smaller. A server may take eight requests one after the other."""
PROOF = 64
"""Requests of a size that have to pass before a larger one is tried, after that was too much once."""


class Sizes:
    """Threads share it."""

    def __init__(self, told: int = MAX_INPUTS) -> None:
        self.told = told
        """What the server says, or has shown by refusing more."""
        self.known = False
        """Whether a request was answered; before that one goes by itself, and the probe is none."""
        self._grown = float(FIRST)
        self._passed = 0
        self._bound = float(MAX_INPUTS)
        self._proofs, self._wanted = 0, PROOF // 2
        self._lock = threading.Lock()

    @property
    def most(self) -> int:
        """Texts that the next request may have."""
        return max(1, min(self.told, int(self._bound), int(self._grown)))

    def passes(self, texts: int, seconds: float, timeout: float) -> None:
        """A request was answered in time."""
        with self._lock:
            self._passed = max(self._passed, texts)
            share = max(seconds, 1e-6) / timeout
            if share <= QUICK:
                self._grown = max(self._grown, texts * min(QUICK / share, GROWTH))
            elif share > SLOW:
                self._grown = max(1.0, min(self._grown, texts * SLOW / share))
            if self._bound < MAX_INPUTS and texts >= int(self._bound):
                self._proofs += 1
                if self._proofs >= self._wanted:
                    self._bound, self._proofs = self._bound * 2, 0

    def fails(self, texts: int) -> None:
        """A request of so many had no answer in time, and fewer might have. What has passed before is kept to."""
        self.shows(self._passed if self._passed < texts else texts // 2)

    def shows(self, works: int) -> None:
        """So many were answered where more were not."""
        with self._lock:
            if works < self._bound:
                self._bound, self._proofs, self._wanted = float(max(1, works)), 0, self._wanted * 2
                self._passed = min(self._passed, int(self._bound))
