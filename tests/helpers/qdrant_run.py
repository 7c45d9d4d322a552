"""A migration of a collection by plain functions, without Prefect, and what is done to it meanwhile."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tasks.catch_up import CaughtUp, catch_up
from tasks.cutover import cutover
from tasks.runs import ledger
from tasks.runs.checkpoints import Mark
from tasks.runs.run import Run
from tasks.verify import verify
from tests.helpers.pipeline import build, gates
from tests.helpers.qdrant_target import QdrantForm


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def begun(url: str, kind: str, vector: str = "", run_id: str = "r", **more: Any) -> Run:
    """Snapshot to catching up."""
    return build(run_id, QdrantForm, url=url or None, strategy=kind, vector=vector, batch_rows=20, gates=GATES, **more)


def switched(run: Run) -> list[str]:
    """Catches up, verifies and switches, as the verb does."""
    ready(run)
    return cutover(run)


def ready(run: Run) -> None:
    """Catches up and verifies."""
    last = followed(run).last
    verify(run, gates(**GATES), [last]).refuse()
    taken_for_verified(run)


def taken_for_verified(run: Run) -> Run:
    """So that it can be switched, whatever was verified of it."""
    with run.connection() as connection:
        if ledger.get(connection, run.run_id).state != "cut_over":
            ledger.set_state(connection, run.run_id, "verified")
    return run


def followed(run: Run) -> CaughtUp:
    return catch_up(run, 0, max_deleted=0.5)


def killed_before_the_ledger(monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[None]:
    """A kill when the mark is to be set alone, after the store's own write."""
    return killed_when(monkeypatch, Mark, "alone")


@contextmanager
def killed_when(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Iterator[None]:
    """A kill when ``name`` of ``owner`` is to be called."""

    def killed(*arguments: Any, **more: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(Killed):
            yield


GATES = {"max_quarantined": 10}
