"""What the command needs while it is still being imported, which takes a second: an answer to Ctrl-C, and nobody who looks for
garbage meanwhile. To be imported before anything else."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LINE = b"vecferry: interrupted; nothing was changed\n"


@contextmanager
def importing() -> Iterator[None]:
    """Around imports of much: they make a million objects and no garbage, and to look for some takes a sixth of their time. What is
    there afterwards stays, and is not looked at again."""
    gc.disable()
    try:
        yield
    finally:
        imported()


def imported() -> None:
    """Ends what the import of this module began."""
    gc.freeze()
    gc.enable()


def leave(signum: int, frame: FrameType | None) -> None:
    """Ends the process, which has done nothing yet."""
    os.write(2, b"\n" + LINE if os.isatty(2) else LINE)
    os._exit(1)


# Not where the command is called inside of another program, and not where a script told its jobs to ignore it.
if os.path.basename(sys.argv[0]) == "vecferry" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
gc.disable()
