"""A process of its own that makes the vectors of some texts for a run: ``python -m tests.helpers.buyer RUN FIRST LAST [MODEL]``, by the
run's model or that one. Prints the SHA-256 of them, a line a text, or in one line why there are none."""

import hashlib
import sys

import pyarrow as pa

from tasks.base.errors import VecferryError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.runs.run import open_run
from tasks.runs.vectors import embedded


def text_of(number: int) -> str:
    return f"text {number} of many."


def buy(run_id: str, first: int, last: int, model: str | None = None) -> pa.Table:
    """The vectors of texts FIRST to LAST, those before the latter."""
    run = open_run(run_id, DEFAULT_DATABASE)
    page = pa.table({"document": [text_of(number) for number in range(first, last)]})
    with run.kept_open():
        return embedded(run, run.plan.targets[0], page, model=model)[0].column("embedding")


if __name__ == "__main__":
    try:
        for vector in buy(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]):
            print(hashlib.sha256(vector.values.to_numpy().tobytes()).hexdigest())
    except VecferryError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
