"""Which VECFERRY_HOME a run belongs to: its snapshot, and the vectors that it bought, lie in no other. A home is known by a name
that is written into it, so that it may be moved, or be mounted elsewhere on another machine."""

from uuid import uuid4

from tasks.base import files
from tasks.base.errors import UsageError
from tasks.runs.plan import Plan

FILE = "home.id"


def identity(home: str) -> str | None:
    """The name in a home; None where it has none yet."""
    try:
        return files.read(files.join(home, FILE)).decode().strip()
    except FileNotFoundError:
        return None


def named(home: str) -> str:
    """The name in a home, which is given one where it has none yet. Who comes second takes the first one's."""
    if there := identity(home):
        return there
    files.create(files.join(home, FILE), f"{uuid4().hex}\n".encode())
    written = identity(home)
    assert written
    return written


def check(plan: Plan, home: str) -> None:
    """Raises UsageError where the run was begun with another home than this one."""
    if plan.home is None or (there := identity(home)) == plan.home:
        return
    kept = files.join(home, FILE)
    what = f"{home} is a different one" if there else f"{home} is empty"
    raise UsageError(
        f"run {plan.run_id} keeps its snapshot and its vectors in the VECFERRY_HOME that it was begun "
        f"with, but {what}: set VECFERRY_HOME to that one. If it is lost, write {plan.home} into {kept}, "
        "and what was kept there is made again"
    )
