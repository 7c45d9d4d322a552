"""What Prefect's pages show of a run."""

import logging
from collections.abc import Callable
from typing import Any

import prefect.artifacts
import pytest
from prefect.artifacts import Artifact

from flows.chroma_to_pgvector import chroma_to_pgvector
from tasks.runs import artifacts

Make = Callable[..., str]


@pytest.fixture
def published(unpublished: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sent, as in use."""
    for name in (
        "create_progress_artifact",
        "update_progress_artifact",
        "create_table_artifact",
        "create_markdown_artifact",
    ):
        monkeypatch.setattr(artifacts, name, getattr(prefect.artifacts, name))


def shown(run_id: str, what: str) -> Any:
    """The data of the latest artifact of that key."""
    artifact = Artifact.get(f"{run_id}-{what}")
    assert artifact, what
    return artifact.data  # type: ignore[union-attr]


def test_every_stage_has_a_bar_and_what_was_done_a_table(
    published: None, prefect: None, database: str, chroma_dir: Make
) -> None:
    """All of them full in the end; the batches, the checks, and in words what the flow did."""
    chroma_to_pgvector(chroma={"path": chroma_dir()}, batch_rows=20, run_id="shown", gates={"min_recall": 0.5})
    bars = {stage: shown("shown", stage) for stage in ("snapshot", "load", "index", "catch-up", "verify")}
    assert set(bars.values()) == {100.0}, bars
    assert shown("shown", "batches").count('"status": "done"') == 6
    assert "| ✅ | rows | " in shown("shown", "verification")
    assert "verified" in shown("shown", "result")


def test_a_server_that_takes_none_stops_nothing(
    prefect: None, database: str, chroma_dir: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends well, and says which were not written."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room for it")

    for name in ("create_progress_artifact", "create_table_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(artifacts, name, refuse)
    with caplog.at_level(logging.WARNING, "vecferry"):
        chroma_to_pgvector(chroma={"path": chroma_dir()}, run_id="unshown", gates={"min_recall": 0.5})
    for name in ("progress", "batches", "verification", "result"):
        assert f"{name}: the artifact was not written: no room for it" in caplog.text
