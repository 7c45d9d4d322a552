"""The application's process, from the side of the demo that starts it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows.command.demos.application import Meanwhile, Order, Texts
from tasks.base.errors import VecferryError
from tasks.base.words import counted

SECONDS = 20
"""That it has to come to its end."""


@dataclass
class Live:
    """The application at work."""

    process: "subprocess.Popen[str]"
    order: Order = field(default_factory=Order)
    total: Meanwhile = field(default_factory=Meanwhile)

    def tell(self, order: Order | None = None) -> Meanwhile:
        """What it did since it was told last; from now on it follows ``order``. Raises VecferryError when it has ended."""
        assert self.process.stdin
        assert self.process.stdout
        self.order = order or self.order
        try:
            print(json.dumps(asdict(self.order)), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise VecferryError(f"the demo's application has ended with {self.process.wait(SECONDS)}")
        meanwhile = Meanwhile(**json.loads(answer))
        self.total.add(meanwhile)
        return meanwhile


@contextmanager
def working(url: str, folder: Path, texts: Texts) -> Iterator[Live]:
    """The application works while the body runs, and no longer than this process, however that ends."""
    texts.save(folder)
    command = [sys.executable, "-m", "flows.command.demos.application", url, str(folder)]
    # In a group of its own the terminal's Ctrl-C does not reach it: it ends when its input does.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", process_group=0
    )
    try:
        live = Live(process)
        live.tell()  # it answers once it is at work
        yield live
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(SECONDS)


def told(meanwhile: Meanwhile) -> str:
    """What it did, in a line."""
    answers = counted(meanwhile.searches, "answer")
    if meanwhile.new:
        answers += f", {meanwhile.new:,} of them by the new model"
    slowest = f"the slowest in {meanwhile.longest * 1000:.0f} ms"
    return f"{counted(meanwhile.written, 'row')} written; {answers}, {slowest}, {meanwhile.wrong:,} wrong"
