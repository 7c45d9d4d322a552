"""Other processes of this machine."""

import psutil


def alive(pid: int) -> bool:
    """Whether a process of that number is there and has not ended; one that nobody has waited for yet has."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
