"""What a worker of pytest-xdist runs together."""

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parents[2]


TOGETHER = ("tests.helpers.local_models", "import sources")
"""What the files have in their text that run in one process: importing torch and what stands on it takes ten seconds of a processor,
parsing all sources three."""


class Scheduling(LoadFileScheduling):
    """The tests of a file, and those of all files that need the same of what is slow to make."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return _reason(file) or file


@cache
def _reason(file: str) -> str | None:
    """Why it runs with others, if it does."""
    text = (ROOT / file).read_text()
    return next((name for name in TOGETHER if name in text), None)
