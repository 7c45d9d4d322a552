"""The deployments of clip-to-megadescriptor, with tiny models of the real kinds, and of siglip-to-clip, on a real Prefect server with
a real worker."""

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tasks.runs import ledger
from tasks.stores.postgres.connection import connect
from tests.helpers.captioned import NAME, NEW, Points
from tests.helpers.deployed import IMAGES, POINTS, Api, deployed
from tests.helpers.image_host import image_host, status
from tests.helpers.image_reports import ImageReports
from tests.helpers.local_models import needs_models, needs_timm
from tests.helpers.qdrant import Qdrant
from tests.helpers.tiny_models import clip_model, timm_model

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.whole]

EVERY = 4.0
"""Seconds between two nights."""


@pytest.fixture(scope="module")
def api(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with deployed(postgres, tmp_path_factory.mktemp("home")) as client:
        yield client


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return f"sentence-transformers/{clip_model(folder / 'clip')}", f"timm/{timm_model(folder / 'timm')}"


@needs_timm
@needs_models
def test_a_batch_whose_host_was_down_is_rerun_with_the_parameters_shown(
    api: Api, models: tuple[str, str], tmp_path: Path
) -> None:
    """`manual` ends Failed and names the batch of the images of a host that is down, with nothing set aside; `rerun-failed` with the
    parameters of the artifact ends Completed, switched, with the vector of every report."""
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection, image_host() as well, image_host() as down:
        reports = ImageReports(connection, tmp_path / "photos", *models, rows=30)
        paths = connection.execute("SELECT id, image_path FROM reports WHERE image_path IS NOT NULL").fetchall()
        for id, path in paths:
            host = down if 10 <= id < 20 else well
            host.put(f"/{quote(path)}", status(503) if host is down else (reports.folder / path).read_bytes())
            url = f"{host.root}/{quote(path)}"
            connection.execute("UPDATE reports SET image_path = %s WHERE id = %s", (url, id))
        asked = {
            "images": {"root": "https://", "allow_hosts": [f"127.0.0.1:{host.port}" for host in (well, down)]},
            "embedder": reports.new_name,
            "crop": reports.parameters()["crop"],
            "run_id": "down",
            "batch_rows": 10,
            "cutover": "auto",
            "gates": {"min_recall": 0},
        }
        run = api.ended(api.start("clip-to-megadescriptor/manual", parameters=asked))
        assert run["state_type"] == "FAILED"
        assert "1 batch failed in load: 1 " in run["state"]["message"], run["state"]["message"]
        assert "says 503" in run["state"]["message"]

        shown = api.artifact("down-rerun")
        parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
        assert parameters["batch_ids"] == [1]
        for path in list(down.answers):
            down.put(path, (reports.folder / path.strip("/").replace("%20", " ")).read_bytes())
        second = api.ended(api.start("clip-to-megadescriptor/rerun-failed", parameters=parameters))
        assert second["state_type"] == "COMPLETED", second["state"]["message"]
        assert ledger.get(connection, "down").state == "cut_over"
        connection.execute(
            f"UPDATE reports SET image_path = replace(replace(image_path, '%20', ' '), '{well.root}/', '')"
        )
        connection.execute(f"UPDATE reports SET image_path = replace(image_path, '{down.root}/', '')")
        assert reports.stored() == reports.expected()


@needs_timm
@needs_models
def test_a_schedule_brings_what_was_changed_by_day(api: Api, models: tuple[str, str], tmp_path: Path) -> None:
    """The first night migrates and switches, by itself; the second, which names no run either, brings the images that other
    references mean into the new vectors. There is one run."""
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        reports = ImageReports(connection, tmp_path / "photos", *models)
        asked: Any = reports.parameters(cutover="auto", old_embedder=None, gates={"min_recall": 0})
        with api.every(EVERY, IMAGES, database="NIGHTLY_URL", **asked) as begun:
            first = api.fired(IMAGES, begun)
            assert first["state_type"] == "COMPLETED", first["state"]["message"]
            reports.refer(3, reports.file(200))
            assert reports.stored() != reports.expected()
            second = api.fired(IMAGES, datetime.now(UTC))
            assert second["state_type"] == "COMPLETED", second["state"]["message"]
        (name,) = [run for run in ledger.run_ids(connection) if run.startswith("clip-to-megadescriptor")]
        assert first["name"] == second["name"] == name
        assert "1 updated" in second["state"]["message"], second["state"]["message"]
        assert reports.stored() == reports.expected()


def texts(qdrant: Qdrant, **more: Any) -> dict[str, Any]:
    """Parameters of a run over the captions."""
    return {
        "qdrant": {"url": qdrant.url}, "content": "text", "text": "caption", "embedder": f"hashing/{NEW.dimensions}",
        "cutover": "auto", "gates": {"max_quarantined": 20, "min_recall": 0}, **more,
    }  # fmt: skip


def test_batches_that_qdrant_refused_are_rerun_with_the_parameters_shown(api: Api, qdrant: Qdrant) -> None:
    """`manual` ends Failed and names the batches of a server that does not take writes; `rerun-failed` with the parameters of the
    artifact ends Completed, switched, with the vector of every point."""
    points, server = Points(qdrant.client()).make(30), qdrant.server
    server.fail("upsert_points", 503, 1 << 30)
    run = api.ended(api.start("siglip-to-clip/manual", parameters=texts(qdrant, run_id="refused", batch_rows=10)))
    assert run["state_type"] == "FAILED"
    assert "failed in load: 0" in run["state"]["message"], run["state"]["message"]
    shown = api.artifact("refused-rerun")
    parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
    assert parameters["batch_ids"]
    server.mend()
    second = api.ended(api.start("siglip-to-clip/rerun-failed", parameters=parameters))
    assert second["state_type"] == "COMPLETED", second["state"]["message"]
    beside = f"{NAME}_{NEW.dimensions}"
    assert [(a.alias_name, a.collection_name) for a in qdrant.client().get_aliases().aliases] == [
        (f"{beside}_current", beside)
    ]
    assert points.rows(beside) == points.expected()


def test_a_schedule_brings_what_was_written_to_a_collection(api: Api, qdrant: Qdrant) -> None:
    """The first night migrates and switches, by itself; the second, which names no run either, brings what was written by day. There is
    one run."""
    points = Points(qdrant.client(), old="siglip").make(40)
    with api.every(EVERY, POINTS, **texts(qdrant, vector_name="clip", database="NIGHTLY_URL")) as begun:
        first = api.fired(POINTS, begun)
        assert first["state_type"] == "COMPLETED", first["state"]["message"]
        points.change(1)
        assert points.rows(NAME, "clip") != points.expected()
        second = api.fired(POINTS, datetime.now(UTC))
        assert second["state_type"] == "COMPLETED", second["state"]["message"]
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        (name,) = [run for run in ledger.run_ids(connection) if run.startswith("siglip-to-clip")]
    assert first["name"] == second["name"] == name
    assert "caught up" in second["state"]["message"], second["state"]["message"]
    assert points.rows(NAME, "clip") == points.expected()
