"""What the kill test of live tables compares with finds the faults that are planted, and no others."""

from pathlib import Path

import pytest

from tasks.stores.postgres.connection import Connection
from tests.helpers import live_images
from tests.helpers.counting import LOG, CountingEmbedder, counted


@pytest.fixture
def reports(connection: Connection, tmp_path: Path) -> live_images.Reports:
    """With the new vectors that they should have."""
    made = live_images.Reports(tmp_path / "files")
    made.make(connection, 20)
    connection.execute(f"ALTER TABLE reports ADD COLUMN embedding_megadescriptor vector({3 * live_images.NEW**2})")
    for id, path, *crop in connection.execute("SELECT id, image_path, x, y, width, height FROM reports").fetchall():
        vector = str(made.vector(path, live_images.crop_of(crop), live_images.NEW).tolist())
        connection.execute("UPDATE reports SET embedding_megadescriptor = %s WHERE id = %s", (vector, id))
    return made


NEW = "embedding_megadescriptor"


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (f"UPDATE reports SET {NEW} = NULL WHERE id = 3", "3 is missing"),
        ("UPDATE reports SET image_path = NULL WHERE id = 3", "3 is orphaned"),
        (f"UPDATE reports SET {NEW} = (SELECT {NEW} FROM reports WHERE id = 4) WHERE id = 3", "3 is stale"),
        ("UPDATE reports SET (x, y, width, height) = (0.25, 0.25, 0.5, 0.5) WHERE id = 3", "3 is stale"),
        ("UPDATE reports SET embedding = (SELECT embedding FROM reports WHERE id = 4) WHERE id = 3", "3 has another old vector"),
        ("UPDATE reports SET embedding = NULL WHERE id = 3", "3 has another old vector"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(connection: Connection, reports: live_images.Reports, plant: str, fault: str) -> None:
    """A vector that is missing, of no image, of another image or crop, and an old one that is nobody's."""
    assert reports.faults(connection) == []
    connection.execute(plant.encode())
    assert fault in reports.faults(connection)
    assert {line.split()[0] for line in reports.faults(connection)} == {"3"}


def test_a_file_that_is_replaced_makes_its_vector_stale(connection: Connection, reports: live_images.Reports) -> None:
    """No row says so; the old vector is of a picture that was there."""
    (path,) = connection.execute("SELECT image_path FROM reports WHERE id = 3").fetchone() or ("",)
    reports.file(path)
    assert reports.faults(connection) == ["3 is stale"]


def test_a_wrong_answer_is_told(connection: Connection, reports: live_images.Reports) -> None:
    """A similarity that no picture of the report has, and another report in the first place."""
    questions = live_images.ImageQuestions(reports)
    rows = connection.execute(questions.call("old").encode()).fetchall()
    assert questions.wrong("old", rows) == []
    first, (id, path, crop, similarity) = rows[0], rows[1]
    assert questions.wrong("old", [first, (id, path, crop, similarity - 0.1)])
    assert questions.wrong("new", rows[1:])


def test_what_is_made_twice_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was kept before; a process that is killed before it keeps a vector may have it made again."""
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path))
    reports = live_images.Reports(tmp_path / "files")
    reports.folder.mkdir()
    one, two = (reports.versions[reports.file()][-1] for _ in range(2))
    model = CountingEmbedder(2)
    model.embed([one, two], lambda at, vectors: None)
    model.embed([one])  # for a sample
    assert counted(tmp_path).twice == []
    model.embed([two], lambda at, vectors: None)
    assert len(counted(tmp_path).twice) == 1
    lines = (tmp_path / LOG).read_text().splitlines()
    (tmp_path / LOG).write_text("\n".join([lines[0], *lines[2:]]))  # killed before the first were kept
    assert counted(tmp_path).twice == []
