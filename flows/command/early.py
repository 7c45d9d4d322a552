"""Ctrl-C while the command is still being imported, which takes a second. To be imported before anything else."""

import os
import signal
import sys
from types import FrameType

LINE = b"vecferry: interrupted; nothing was changed\n"


def leave(signum: int, frame: FrameType | None) -> None:
    """Ends the process, which has done nothing yet."""
    os.write(2, b"\n" + LINE if os.isatty(2) else LINE)
    os._exit(1)


# Not where the command is called inside of another program, and not where a script told its jobs to ignore it.
if os.path.basename(sys.argv[0]) == "vecferry" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
