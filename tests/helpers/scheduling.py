"""What a worker of pytest-xdist runs together."""

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parents[2]


class Scheduling(LoadFileScheduling):
    """The tests of a file; and those of all files that load models, for each process that imports torch and what stands on it
    takes ten seconds of a processor."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "models" if _loads_models(file) else file


@cache
def _loads_models(file: str) -> bool:
    return "tests.helpers.local_models" in (ROOT / file).read_text()
