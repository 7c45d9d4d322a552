"""A live table of reports with images, as the guide of clip-to-megadescriptor leaves it, real files, and the ``Migration`` that the
lifecycle harness drives."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flows.catch_up import catch_up
from flows.clip_to_megadescriptor import clip_to_megadescriptor
from flows.forms.clip_to_megadescriptor import ClipToMegadescriptor
from flows.forms.form import parse
from tasks.embedders import pictures
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import Migration, Rows, tables
from tests.helpers.photographs import photograph

FORMATS = ("JPEG", "PNG", "WEBP")
CROP = {"x": "x", "y": "y", "width": "width", "height": "height"}


class Near:
    """A vector that equals another where they differ by no more than what a model makes of one picture in two batches."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector.astype(np.float64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and bool(np.allclose(self.vector, other.vector, atol=1e-4))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Near({self.vector[:4].round(4).tolist()}…)"


class ImageReports:
    """The table with an IVFFlat index, a function that searches and one that writes; and an application with the old model."""

    def __init__(self, connection: Connection, folder: Path, old: str, new: str, rows: int = 40) -> None:
        self.connection, self.folder = connection, folder
        self.old_name, self.new_name = old, new
        self.old, self.new = open_embedder(old), open_embedder(new)
        folder.mkdir(exist_ok=True)
        dims = self.old.space.dimensions
        connection.execute(
            f"CREATE TABLE reports (id bigint PRIMARY KEY, image_path text, x real, y real, width real, height real, "
            f"species text, seen int DEFAULT 0, embedding vector({dims}));"
            f"CREATE FUNCTION match_reports(query_embedding vector({dims}), match_threshold float, match_count int) "
            f"RETURNS TABLE (id bigint, image_path text, similarity float) LANGUAGE sql STABLE AS $$ "
            f"SELECT r.id, r.image_path, 1 - (r.embedding <=> query_embedding) FROM public.reports r "
            f"WHERE 1 - (r.embedding <=> query_embedding) > match_threshold "
            f"ORDER BY r.embedding <=> query_embedding LIMIT match_count $$;"
            f"CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector({dims})) RETURNS void "
            f"LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN "
            f"UPDATE reports SET embedding = new_embedding WHERE id = report_id; END $$"
        )
        self.next, self.stopped = 0, False
        for _ in range(rows):
            self._add()
        items = self.items()
        vectors = self.old.embed([*items.values()]).whole if items else []
        for name, vector in zip(items, vectors, strict=True):
            self._keep(int(name), vector)
        connection.execute(
            "CREATE INDEX reports_embedding ON reports USING ivfflat (embedding vector_cosine_ops) WITH (lists = 2)"
        )

    def file(self, n: int) -> str:
        """The n-th picture, of one of the formats."""
        kind = FORMATS[n % len(FORMATS)]
        name = f"photo {n}.{kind.lower()}"
        photograph(80, 60, n).save(self.folder / name, kind)
        return name

    def refile(self, n: int) -> None:
        """Somebody puts another picture in the place of the n-th."""
        (name,) = self.connection.execute("SELECT image_path FROM reports WHERE id = %s", (n,)).fetchone() or ("",)
        photograph(80, 60, 500 + n).save(self.folder / name, FORMATS[n % len(FORMATS)])

    def add(self) -> int:
        n = self._add()
        self.write(n)
        return n

    def _add(self) -> int:
        """A report whose vector is not made yet."""
        n = self.next
        self.next += 1
        path = None if n % 11 == 10 else self.file(n - (n % 7 == 6))
        crop = (0.25, 0.0, 0.5, 1.0) if n % 5 == 0 else (None,) * 4
        self.connection.execute(
            "INSERT INTO reports (id, image_path, x, y, width, height, species) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (n, path, *crop, f"species {n % 4}"),
        )
        return n

    def write(self, n: int) -> None:
        """The application makes the vector of a report's image, by the model that it has, and as long as there is a column for it."""
        if self.stopped:
            return
        if item := self.items(f"WHERE id = {n}").get(str(n)):
            self._keep(n, self.old.embed([item]).whole[0])

    def _keep(self, n: int, vector: np.ndarray) -> None:
        self.connection.execute("SELECT update_report_embedding(%s, %s::vector)", (n, str(vector.tolist())))

    def refer(self, n: int, path: str | None) -> None:
        self.connection.execute("UPDATE reports SET image_path = %s WHERE id = %s", (path, n))
        self.write(n)

    def crop(self, n: int, box: tuple[float, float, float, float]) -> None:
        self.connection.execute("UPDATE reports SET (x, y, width, height) = (%s, %s, %s, %s) WHERE id = %s", (*box, n))
        self.write(n)

    def items(self, where: str = "") -> dict[str, bytes]:
        """What stands for the image of each report that has one, written out without the code under test."""
        rows = self.connection.execute(
            f"SELECT id::text, image_path, x, y, width, height FROM reports {where}"  # type: ignore[call-overload]
        ).fetchall()
        items = {}
        for name, path, *crop in rows:
            if path is None or not (self.folder / path).exists():
                continue
            data = (self.folder / path).read_bytes()
            if crop[0] is not None:
                with Image.open(self.folder / path) as picture:
                    across, down = picture.size
                x, y, width, height = crop
                box = (round(x * across), round(y * down), round((x + width) * across), round((y + height) * down))
                data = pictures.cropped(data, box)
            items[name] = data
        return items

    def vector_of(self, n: int, model: Embedder) -> list[float]:
        vector: list[float] = model.embed([self.items(f"WHERE id = {n}")[str(n)]]).whole[0].tolist()
        return vector

    def nearest(self, n: int, model: Embedder) -> list[tuple[Any, ...]]:
        """What the search function answers by the vector of a report."""
        return self.connection.execute(
            "SELECT id, image_path, round(similarity::numeric, 4) FROM match_reports(%s::vector, -2, 5)",
            (str(self.vector_of(n, model)),),
        ).fetchall()

    def expected(self, model: Embedder | None = None) -> Rows:
        items = self.items()
        embedded = (model or self.new).embed(list(items.values()))
        return {name: Near(embedded.vectors[at]) for at, name in enumerate(items) if at not in embedded.rejected}

    def stored(self, column: str = "embedding") -> Rows:
        rows = self.connection.execute(
            f"SELECT id::text, {column}::text FROM reports WHERE {column} IS NOT NULL"  # type: ignore[call-overload]
        ).fetchall()
        return {name: Near(np.array(text[1:-1].split(","), np.float32)) for name, text in rows}

    def new_vectors(self, layout: str) -> Rows:
        """After a switch."""
        return self.stored() if layout == "column" else rows_beside(self, "embedding_megadescriptor") or {}

    def columns(self) -> dict[str, str]:
        """The columns of vectors and their types."""
        return dict(
            self.connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'reports'::regclass "
                "AND attnum > 0 AND NOT attisdropped AND starts_with(format_type(atttypid, NULL), 'vector') ORDER BY attnum"
            ).fetchall()
        )

    def parameters(self, **more: Any) -> dict[str, Any]:
        """Of the flow."""
        given = {
            "images": {"root": str(self.folder)},
            "crop": CROP,
            "embedder": self.new_name,
            "old_embedder": self.old_name,
            "batch_rows": 20,
        }
        return {**given, **more}

    def plan(self, **more: Any) -> Planned:
        form = parse(ClipToMegadescriptor, self.parameters(**more))
        return make_plan(self.connection, form.request(), "life")


def rows_beside(reports: ImageReports, column: str) -> Rows | None:
    """New vectors that lie beside the table."""
    view = reports.connection.execute(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %s "
        "WHERE c.relname LIKE 'reports%%rows' AND c.relkind = 'v'",
        (column,),
    ).fetchone()
    if view is None:
        return None
    rows = reports.connection.execute(
        f"SELECT id::text, {column}::text FROM {view[0]} WHERE {column} IS NOT NULL"
    ).fetchall()
    return {name: Near(np.array(text[1:-1].split(","), np.float32)) for name, text in rows}


def migration_of(reports: ImageReports, layout: str, **more: Any) -> Migration:
    """The flow over the table, and the application's changes in its life."""
    given: Mapping[str, Any] = reports.parameters(layout=layout, **more)
    step = itertools.count(1)

    def change() -> None:
        n = next(step)
        reports.stopped = layout == "side_table" and served() is not None
        reports.add()
        reports.refer(n, reports.file(100 + n))
        reports.crop(10 + n, (0, 0, 0.5, 0.5))
        reports.connection.execute("UPDATE reports SET seen = seen + 1 WHERE id = %s", (15 + n,))
        reports.connection.execute("DELETE FROM reports WHERE id = %s", (20 + n,))
        reports.refer(30 + n, None)

    def active() -> str | None:
        if reports.connection.execute("SELECT to_regclass('vecferry.active_space')").fetchone() == (None,):
            return None
        row = reports.connection.execute("SELECT column_name FROM vecferry.active_space").fetchone()
        return row[0] if row else None

    def served() -> Rows | None:
        if layout == "side_table":
            return rows_beside(reports, "embedding_megadescriptor") if active() == "embedding_megadescriptor" else None
        searched = reports.columns().get("embedding") == f"vector({reports.new.space.dimensions})"
        return reports.stored() if searched else None

    return Migration(
        run=lambda run_id: clip_to_megadescriptor(**given, run_id=run_id),
        plan=lambda: reports.plan(layout=layout, **more),
        expected=reports.expected,
        served=served,
        change=change,
        writes=lambda: tables(reports.connection),
        catch_up=lambda run_id: catch_up(run_id=run_id),
        lives_on=layout == "side_table",
    )
