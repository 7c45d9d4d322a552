"""The images of a live table onto another model, through the whole life of a run, in both layouts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image

from flows.catch_up import catch_up
from flows.clip_to_megadescriptor import clip_to_megadescriptor
from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from flows.verify import verify
from tasks.base.errors import UsageError, VerificationRefused
from tasks.stores.postgres.connection import Connection
from tests.helpers.image_reports import ImageReports, Near, migration_of, rows_beside
from tests.helpers.lifecycle import drive
from tests.helpers.local_models import needs_models, needs_timm
from tests.helpers.sampling import sampled
from tests.helpers.tiny_models import clip_model, timm_model

pytestmark = [pytest.mark.usefixtures("prefect"), needs_timm, needs_models]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The old model and the new one: tiny, with random weights, loaded by the real code."""
    folder = tmp_path_factory.mktemp("models")
    old, new = clip_model(folder / "clip"), timm_model(folder / "timm")
    return f"sentence-transformers/{old}", f"timm/{new}?preprocess=card&normalize=true"


@pytest.fixture
def reports(connection: Connection, tmp_path: Path, models: tuple[str, str]) -> ImageReports:
    return ImageReports(connection, tmp_path / "photos", *models)


@pytest.mark.parametrize("layout", sampled(["column", "side_table"], "column"))
def test_lifecycle(reports: ImageReports, layout: str) -> None:
    """Plan, run, roll back, run, cut over, catch up, roll back, cut over and contract, while the application inserts reports, changes
    references and crops, deletes, and writes vectors of the old model; from an IVFFlat index."""
    drive(migration_of(reports, layout))


@pytest.mark.whole
def test_lifecycle_by_the_guides_dimensions(connection: Connection, tmp_path: Path) -> None:
    """The same from 512 to 1536 by the architectures of the guide, CLIP and Swin, made small."""
    old, new = clip_model(tmp_path / "clip", 512), timm_model(tmp_path / "timm", width=192)
    names = f"sentence-transformers/{old}", f"timm/{new}?preprocess=card"
    reports = ImageReports(connection, tmp_path / "photos", *names)
    assert reports.columns() == {"embedding": "vector(512)"}
    drive(migration_of(reports, "column"))
    assert reports.columns() == {"embedding": "vector(1536)"}


def test_what_the_guide_checks(reports: ImageReports) -> None:
    """After the switch the column is called as before and has the new dimensions on every row with a vector, an HNSW index is there
    and used, and the functions take the new vectors; those of the old model still go where they belong."""
    connection, (old, new) = reports.connection, (reports.old.space.dimensions, reports.new.space.dimensions)
    assert reports.columns() == {"embedding": f"vector({old})"}
    before = [functions_of(connection), reports.nearest(3, reports.old)]
    changes = f"embedding_model_{old} the old ones: every instance of the application needs the new model"
    assert any(changes in warning for warning in reports.plan().warnings)
    result = clip_to_megadescriptor(**reports.parameters(cutover="auto"), run_id="r")
    assert result["state"] == "cut_over"
    assert any(changes in line for line in result["done"])
    report = json.loads((reports.folder.parent / "home/runs/r/report.json").read_text())["targets"][0]
    assert report["benchmark"]["exact"]["searches"] > 0
    assert any("squashed to 64x64" in note and "licence of its weights: mit" in note for note in report["notes"])
    assert len(report["contact_sheet"]) == 8
    kept = f"embedding_model_{old}"
    assert reports.columns() == {kept: f"vector({old})", "embedding": f"vector({new})"}
    assert connection.execute(
        "SELECT DISTINCT vector_dims(embedding), array_length(embedding::real[], 1) FROM reports WHERE embedding IS NOT NULL"
    ).fetchall() == [(new, new)]
    indexes = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'reports'").fetchall()
    assert any("USING hnsw (embedding vector_cosine_ops)" in index for (index,) in indexes)
    connection.execute("SET enable_seqscan = off")
    query = str(reports.vector_of(3, reports.new))
    plan = connection.execute(f"EXPLAIN SELECT id FROM reports ORDER BY embedding <=> '{query}' LIMIT 5").fetchall()  # type: ignore[call-overload]
    assert "hnsw" in str(plan)

    assert reports.nearest(3, reports.old) == before[1]
    assert reports.nearest(3, reports.new)[0][0] == 3
    connection.execute("SELECT update_report_embedding(3, %s::vector)", [query])
    assert reports.stored() == reports.expected()
    reports.write(4)  # an instance that still has the old model
    assert reports.stored(kept) == reports.expected(reports.old)
    assert reports.stored() == reports.expected()
    with pytest.raises(psycopg.errors.DataException, match=f"expected {new} dimensions, not {old}"):
        connection.execute("UPDATE reports SET embedding = %s WHERE id = 5", [str(reports.vector_of(5, reports.old))])

    assert rollback(run_id="r")["state"] == "rolled_back"
    assert [functions_of(connection), reports.nearest(3, reports.old)] == before
    assert cutover(run_id="r")["state"] == "cut_over"
    assert contract(run_id="r", rollback_days=0)["state"] == "contracted"
    assert reports.columns() == {"embedding": f"vector({new})"}
    assert reports.nearest(3, reports.new)[0][0] == 3


def functions_of(connection: Connection) -> list[Any]:
    """The application's functions with their owners and rights."""
    return connection.execute(
        "SELECT pg_get_functiondef(oid), pg_get_userbyid(proowner), proacl::text FROM pg_proc "
        "WHERE proname IN ('match_reports', 'update_report_embedding') ORDER BY proname"
    ).fetchall()


FILES: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "rotated.jpg": (lambda path: _exif(path), None),
    "cmyk.jpg": (lambda path: Image.new("CMYK", (50, 40), (0, 200, 100, 20)).save(path), None),
    "deep.png": (lambda path: Image.fromarray(_ramp()).save(path), None),
    "palette.png": (lambda path: _noise().convert("P").save(path, transparency=0), None),
    "grey.png": (lambda path: _noise().convert("LA").save(path), None),
    "small.png": (lambda path: Image.new("RGB", (1, 1), "red").save(path), None),
    "wide.png": (lambda path: Image.new("RGB", (20_000, 20), "blue").save(path), None),
    "truncated.jpg": (lambda path: _cut(path), "truncated"),
    "text.jpg": (lambda path: path.write_text("a text file by another name") and None, "not_an_image"),
    "page.jpg": (lambda path: path.write_text("<!doctype html><html>no</html>") and None, "page"),
    "nothing.jpg": (lambda path: path.touch(), "empty"),
    "bomb.png": (lambda path: Image.new("1", (30_000, 30_000)).save(path), "too_many_pixels"),
    "gone.jpg": (lambda path: None, "missing"),
    "../outside.jpg": (lambda path: _noise().save(path), "escapes"),
}
"""Name → how the file is made, and the class that its row has in quarantine; None where it gets a vector."""


def test_files_as_people_have_them(reports: ImageReports) -> None:
    """Each file that cannot be had, or is no picture, is set aside by its own class with its reference, and all others get the vectors
    of their pixels; the plan counts them before, and the switch waits for a word about them."""
    for n, (name, (make, _)) in enumerate(FILES.items()):
        make(reports.folder / name)
        reports.connection.execute("INSERT INTO reports (id, image_path) VALUES (%s, %s)", (100 + n, name))
    bad = {str(100 + n): kind for n, (_, kind) in enumerate(FILES.values()) if kind}

    (sampled,) = [more for more in reports.plan().more if more.name == "images"]
    assert {**sampled.values["refused"]} == dict.fromkeys(bad.values(), 1)
    assert "can be opened" in sampled.lines[0]

    with pytest.raises(VerificationRefused, match=r"quarantined \(7 .*'text.jpg'"):
        clip_to_megadescriptor(**reports.parameters(), run_id="r")
    assert quarantined(reports, "r") == bad
    told = {row["id"]: row["message"] for row in set_aside(reports, "r")}
    assert all(repr(name) in told[str(100 + n)] for n, (name, (_, kind)) in enumerate(FILES.items()) if kind)
    result = clip_to_megadescriptor(**reports.parameters(gates={"max_quarantined": 7}, cutover="auto"), run_id="r")
    assert (result["state"], result["targets"][0]["quarantined"]) == ("cut_over", 7)
    stored = reports.stored()
    assert stored.keys() & bad.keys() == set()
    assert stored == {name: vector for name, vector in reports.expected().items() if name not in bad}


def quarantined(reports: ImageReports, run_id: str) -> dict[str, str]:
    """Row → class."""
    return {row["id"]: row["class"] for row in set_aside(reports, run_id)}


def set_aside(reports: ImageReports, run_id: str) -> list[dict[str, Any]]:
    """As the run's folder has them."""
    import pyarrow.parquet as pq

    files = Path(Path(reports.folder.parent, "home", "runs", run_id)).glob("quarantine/**/*.parquet")
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 255, (40, 50, 3), np.uint8))


def _ramp() -> np.ndarray:
    return np.linspace(0, 65_535, 2_000).reshape(40, 50).astype(np.uint16)


def _exif(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _noise().save(path, exif=exif)


def _cut(path: Path) -> None:
    _noise().resize((300, 300)).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:3_000])


def test_images_in_the_table(reports: ImageReports) -> None:
    """References are an expression over columns, or the table has the bytes; either way equal pictures are embedded once, and a change
    of one column that the expression reads is caught up."""
    connection = reports.connection
    connection.execute("ALTER TABLE reports ADD COLUMN edited text, ADD COLUMN photo bytea")
    reports.connection.execute("UPDATE reports SET edited = %s WHERE id = 1", (reports.file(50),))
    given = reports.parameters(image="coalesce(edited, image_path)", old_embedder=None, crop=None)
    clip_to_megadescriptor(**given, run_id="edited")
    connection.execute("UPDATE reports SET edited = %s WHERE id = 2", (reports.file(50),))
    catch_up(run_id="edited")
    (edited,) = reports.new.embed([(reports.folder / reports.file(50)).read_bytes()]).whole
    stored = reports.stored("embedding_megadescriptor")
    assert [stored["1"], stored["2"]] == [Near(edited)] * 2
    rollback(run_id="edited")

    for name, path in connection.execute("SELECT id, image_path FROM reports WHERE image_path IS NOT NULL").fetchall():
        connection.execute("UPDATE reports SET photo = %s WHERE id = %s", ((reports.folder / path).read_bytes(), name))
    given = reports.parameters(image="photo", old_embedder=None, crop=None, images={}, layout="side_table")
    assert clip_to_megadescriptor(**given, run_id="bytes")["state"] == "verified"
    connection.execute("UPDATE reports SET x = NULL, y = NULL, width = NULL, height = NULL")
    assert rows_beside(reports, "embedding_megadescriptor") == reports.expected()


def test_what_is_refused_before_anything_is_made(reports: ImageReports) -> None:
    """Names that are not there, expressions that are none, a kept name that is taken, and a view on the old column: each by its name,
    and with the way on."""
    connection = reports.connection
    with pytest.raises(UsageError, match=r"has no column 'photo'; its columns: id, image_path"):
        reports.plan(image="photo")
    with pytest.raises(UsageError, match="is real, neither the reference of an image"):
        reports.plan(image="x")
    with pytest.raises(UsageError, match="now is not immutable"):
        reports.plan(image="image_path || now()::text")
    with pytest.raises(UsageError, match="has no column 'left'"):
        reports.plan(crop={"x": "left", "y": "y", "width": "width", "height": "height"})
    connection.execute("CREATE VIEW shown AS SELECT id, embedding FROM reports")
    assert any("view" in problem and "shown" in problem for problem in reports.plan().problems)
    assert not reports.plan(allow_dependents=True).problems
    connection.execute("DROP VIEW shown")
    connection.execute(f"ALTER TABLE reports ADD COLUMN embedding_model_{reports.old.space.dimensions} text")
    assert any("embedding_model_" in problem for problem in reports.plan().problems)
    assert connection.execute("SELECT to_regnamespace('vecferry')").fetchone() == (None,)


@pytest.mark.parametrize("layout", sampled(["column", "side_table"], "side_table"))
def test_a_file_that_is_replaced_under_its_name(reports: ImageReports, layout: str) -> None:
    """No column says so: verification finds it in its sample, and a catch-up that reads every image anew puts that row right, and leaves
    the others as they are."""
    clip_to_megadescriptor(**reports.parameters(layout=layout, old_embedder=None, cutover="auto"), run_id="r")
    reports.refile(3)
    with pytest.raises(VerificationRefused, match="row cosine"):
        verify(run_id="r")
    assert catch_up(run_id="r")["targets"][0]["touched"]["updated"] == 0
    assert catch_up(run_id="r", reread=True)["targets"][0]["touched"] == {"inserted": 0, "updated": 1, "deleted": 0}
    verify(run_id="r")
    assert reports.new_vectors(layout) == reports.expected()
