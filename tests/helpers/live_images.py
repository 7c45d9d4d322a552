"""A live table of reports with images and people who change both, and a look at both sides that uses none of the code that migrates."""

import io
import itertools
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from PIL import Image

from tests.helpers.counting import colours
from tests.helpers.readers import active_dimensions

OLD, NEW = 4, 8
"""Sides of the models of tests/helpers/counting.py."""
SIZE = (24, 16)
CROPS: Sequence[tuple[float, ...] | None] = (None, (0.0, 0.0, 0.5, 1.0), (0.25, 0.25, 0.5, 0.5))
KINDS = ("insert", "reference", "crop", "file", "vector", "other", "delete", "reuse", "key")
KEPT = 7
"""A report that nobody changes."""
Key = tuple[str, tuple[float, ...] | None]


@dataclass
class Reports:
    """The table, its files, and what has ever been in them."""

    folder: Path
    versions: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Path → each picture that was at it, the last one now."""
    _number: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def make(self, connection: "psycopg.Connection[Any]", rows: int) -> None:
        """``reports`` as the guide has it, with an index, and functions that search and write its old vectors."""
        self.folder.mkdir(parents=True)
        dims = 3 * OLD**2
        connection.execute(
            f"CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE reports (id bigint PRIMARY KEY, image_path text, x real, y real, "
            f"width real, height real, seen int NOT NULL DEFAULT 0, embedding vector({dims}));"
            f"CREATE FUNCTION match_reports(query_embedding vector({dims}), match_threshold float, match_count int) "
            f"RETURNS TABLE (id bigint, image_path text, crop real[], similarity float) LANGUAGE sql STABLE AS $$ "
            f"SELECT r.id, r.image_path, ARRAY[r.x, r.y, r.width, r.height], 1 - (r.embedding <=> query_embedding) "
            f"FROM public.reports r WHERE 1 - (r.embedding <=> query_embedding) > match_threshold "
            f"ORDER BY r.embedding <=> query_embedding LIMIT match_count $$;"
            f"CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector({dims})) RETURNS void "
            f"LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN "
            f"UPDATE reports SET embedding = new_embedding WHERE id = report_id; END $$"
        )
        for number in range(rows):
            self.insert(connection, number, self.file(), CROPS[number % len(CROPS)])
        connection.execute("CREATE INDEX reports_old ON reports USING hnsw (embedding vector_cosine_ops)")

    def file(self, path: str | None = None) -> str:
        """Another picture, at a path of its own or in the place of the one at ``path``."""
        number = next(self._number)
        path = path or f"{number % 10}/photo {number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        sink = io.BytesIO()
        Image.fromarray(pixels).resize(SIZE, Image.Resampling.NEAREST).save(sink, "PNG")
        (self.folder / path).parent.mkdir(exist_ok=True)
        part = self.folder / f"{number}.part"
        part.write_bytes(sink.getvalue())
        self.versions[path].append(sink.getvalue())  # before anybody can read it
        os.replace(part, self.folder / path)
        return path

    def vector(self, path: str, crop: tuple[float, ...] | None, side: int) -> np.ndarray:
        """Of what is at the path now."""
        return vector_of(self.versions[path][-1], crop, side)

    def insert(
        self, connection: "psycopg.Connection[Any]", id: int, path: str, crop: tuple[float, ...] | None = None
    ) -> None:
        """A new report with its old vector, as an application does it."""
        box = crop or (None,) * 4
        done = connection.execute(
            "INSERT INTO reports (id, image_path, x, y, width, height) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (id, path, *box),
        )
        if done.rowcount:
            self.write_vector(connection, id)

    def write_vector(self, connection: "psycopg.Connection[Any]", id: int, side: int = OLD) -> None:
        """An application makes the vector of a report's image, by the old model, which it may have for long, or by the new one, once
        that is taken."""
        row = connection.execute(
            "SELECT image_path, x, y, width, height FROM reports WHERE id = %s FOR UPDATE", (id,)
        ).fetchone()
        if row and row[0]:
            vector = str(self.vector(row[0], crop_of(row[1:]), side).tolist())
            too_soon = () if side == OLD else (psycopg.errors.DataException,)
            with suppress(*too_soon), connection.transaction():
                connection.execute("SELECT update_report_embedding(%s, %s::vector)", (id, vector))

    def write(
        self, connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str
    ) -> None:
        """One change of the kind."""
        new = 1_000_000 * (number + 1) + step
        row = connection.execute(
            "SELECT id, image_path FROM reports TABLESAMPLE SYSTEM (50) WHERE id <> %s ORDER BY random() LIMIT 1",
            (KEPT,),
        ).fetchone()
        id, path = row or (new, None)
        if kind == "file":
            if path:
                self.file(path)
            return
        with connection.transaction():
            if kind == "insert":
                self.insert(connection, new, self.file(), chance.choice(CROPS))
            elif kind == "reference":
                other = path if chance.random() < 0.2 else self.file()
                connection.execute("UPDATE reports SET image_path = %s WHERE id = %s", (other, id))
                self.write_vector(connection, id)
            elif kind == "crop":
                box = chance.choice(CROPS) or (None,) * 4
                connection.execute(
                    "UPDATE reports SET (x, y, width, height) = (%s, %s, %s, %s) WHERE id = %s", (*box, id)
                )
                self.write_vector(connection, id)
            elif kind == "vector":
                self.write_vector(connection, id, chance.choice((OLD, NEW)))
            elif kind == "other":
                connection.execute("UPDATE reports SET seen = seen + 1 WHERE id = %s", (id,))
            elif kind == "key":
                connection.execute("UPDATE reports SET id = %s WHERE id = %s", (new, id))
            else:
                connection.execute("DELETE FROM reports WHERE id = %s", (id,))
                if kind == "reuse":
                    self.insert(connection, id, self.file())

    def faults(self, connection: "psycopg.Connection[Any]") -> list[str]:
        """Every report whose new vector is missing, stale or of none, and whose old one is not of a picture that it had."""
        columns = dict(
            connection.execute(
                "SELECT attname, atttypmod FROM pg_attribute WHERE attrelid = 'reports'::regclass AND attnum > 0 "
                "AND format_type(atttypid, NULL) = 'vector' AND NOT attisdropped"
            ).fetchall()
        )
        (old,) = [name for name, dims in columns.items() if dims == 3 * OLD**2]
        new = [name for name, dims in columns.items() if dims == 3 * NEW**2]
        beside = "vecferry." + _beside(connection) if not new else ""
        query = f"SELECT id, {new[0]}::text FROM reports" if new else f"SELECT k1, embedding::text FROM {beside}"
        kept = {name: _array(text) for name, text in connection.execute(query) if text is not None}  # type: ignore[arg-type]
        rows = connection.execute(f"SELECT id, image_path, {old}::text, x, y, width, height FROM reports").fetchall()  # type: ignore[arg-type]
        reports = {id: (path, text, crop_of(crop)) for id, path, text, *crop in rows if path}
        result = [f"{name} is missing" for name in reports.keys() - kept.keys()]
        result += [f"{name} is orphaned" for name in kept.keys() - reports.keys()]
        for name, (path, text, crop) in reports.items():
            if name in kept and not np.allclose(kept[name], self.vector(path, crop, NEW), atol=1e-5):
                result.append(f"{name} is stale")
            if text is None or not any(
                np.allclose(_array(text), vector_of(data, crop, OLD), atol=1e-5) for data in self.versions[path]
            ):
                result.append(f"{name} has another old vector")
        return sorted(result)


def crop_of(values: Sequence[float | None]) -> tuple[float, ...] | None:
    return None if values[0] is None else tuple(float(value or 0) for value in values)


def vector_of(data: bytes, crop: tuple[float, ...] | None, side: int) -> np.ndarray:
    """Of the part of a picture, by the model of that side; written out without the code under test."""
    with Image.open(io.BytesIO(data)) as image:
        if crop:
            x, y, width, height = crop
            across, down = SIZE
            image = image.crop(  # type: ignore[assignment]
                (round(x * across), round(y * down), round((x + width) * across), round((y + height) * down))
            )
        return colours(image, side)


@dataclass(frozen=True)
class ImageQuestions:
    """What is asked of ``match_reports``, and what is wrong with an answer."""

    reports: Reports
    table: str = "reports"
    dimensions: int = 3 * NEW**2
    settings: str = ""

    def in_use(self, connection: "psycopg.Connection[Any]") -> bool:
        return active_dimensions(connection, self.table) == self.dimensions

    def call(self, kind: str) -> str:
        side = OLD if kind == "old" else NEW
        path, crop = self._kept
        vector = self.reports.vector(path, crop, side).tolist()
        return f"SELECT id, image_path, crop, similarity FROM match_reports('{vector}'::vector, -2, 8)"

    @property
    def _kept(self) -> Key:
        return list(self.reports.versions)[KEPT], CROPS[KEPT % len(CROPS)]

    def wrong(self, kind: str, rows: Sequence[Any]) -> list[str]:
        result = []
        if rows and (rows[0][0] != KEPT or abs(rows[0][3] - 1) > 1e-4):
            result.append(f"{kind}: {rows[0]} before the report itself")
        if kind == "old":
            path, crop = self._kept
            query = self.reports.vector(path, crop, OLD)
            for id, path, crop, similarity in rows:
                made = [vector_of(data, crop_of(crop), OLD) for data in self.reports.versions[path]]
                if not any(abs(float(query @ vector) - similarity) < 1e-3 for vector in made):
                    result.append(f"old: report {id} at {similarity}")
        return result


def parameters(reports: Reports) -> Mapping[str, Any]:
    """Of the flow. Files that are replaced are no fault of the sample's check: what is compared is all of them."""
    return {
        "images": {"root": str(reports.folder)},
        "crop": {"x": "x", "y": "y", "width": "width", "height": "height"},
        "embedder": f"counting/{NEW}",
        "old_embedder": f"counting/{OLD}",
    }


def _beside(connection: "psycopg.Connection[Any]") -> str:
    row = connection.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' "
        "AND NOT a.attisdropped WHERE c.relnamespace = 'vecferry'::regnamespace AND c.relkind = 'r' AND c.relname LIKE 'reports%'"
    ).fetchone()
    assert row, "there is no table of new vectors"
    return f'"{row[0]}"'


def _array(text: str) -> np.ndarray:
    return np.array(text[1:-1].split(","), np.float32)
