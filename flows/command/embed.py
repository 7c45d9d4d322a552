"""What ``vecferry embed`` does: vectors of a few images and texts, for trying a model and for queries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from flows.command import completion
from flows.command.show import terminal
from flows.command.show.embedded import Made, show_embedded
from tasks.base.errors import UsageError
from tasks.base.words import counted, plural
from tasks.embedders.bare_names import with_provider
from tasks.embedders.interface import Embedder, Item
from tasks.embedders.registry import open_embedder


def command(
    files: Annotated[
        list[Path] | None, typer.Argument(help="an image; may be repeated", metavar="FILE", show_default=False)
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="a model, provider/model, e.g. timm/MegaDescriptor-L-384",
            autocompletion=completion.models,
            metavar="NAME",
            show_default=False,
        ),
    ] = "",
    text: Annotated[
        list[str] | None, typer.Option("--text", help="a text; may be repeated", metavar="TEXT", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """``vecferry embed``. Raises UsageError."""
    if not model:
        raise UsageError("name a model with --model, e.g. --model timm/MegaDescriptor-L-384")
    model = with_provider(model)
    with terminal.passing_by(f"embedding by {model}…"):
        made = embedded(model, files or [], text or [])
    show_embedded(made, as_json)


WRITTEN: Mapping[str, str] = {"image": "a FILE is an image", "text": "--text marks a text"}


def embedded(model: str, files: Sequence[Path], texts: Sequence[str]) -> Made:
    """The vectors of the images in ``files``, then of ``texts``. Raises UsageError where the model or a file is not to be had,
    or has no vector; it is said of all files before the model is loaded."""
    if not files and not texts:
        raise UsageError("nothing to embed: name a FILE with an image, or give a text with --text")
    items: list[Item] = [_bytes_of(file) for file in files]
    embedder = open_embedder(model)
    kinds = {kind for kind, given in (("image", files), ("text", texts)) if given}
    if unfit := kinds - embedder.takes:
        takes = " and ".join(plural(2, kind) for kind in sorted(embedder.takes))
        written = "; ".join(WRITTEN[kind] for kind in sorted(unfit))
        raise UsageError(f"embedder {model!r} takes {takes} only: {written}")
    inputs = [str(file) for file in files] + list(texts)
    made = [
        vectors_of(embedder, model, given, names)
        for given, names in ((items, inputs[: len(files)]), (list(texts), texts))
        if given
    ]
    return Made(model, embedder, inputs, np.concatenate(made))


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(file)!r}; a text is given with --text") from None
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}") from None


def vectors_of(embedder: Embedder, model: str, items: Sequence[Item], names: Sequence[str]) -> np.ndarray:
    """float32[n, d], the vectors of all items. Raises UsageError where one has none, by its name among ``names``."""
    result = embedder.embed(items)
    if result.rejected:
        row, error = next(iter(sorted(result.rejected.items())))
        others = f"; so {counted(len(result.rejected) - 1, 'other', 'are')}" if len(result.rejected) > 1 else ""
        raise UsageError(f"embedder {model!r} has no vector of {names[row]!r}: {error.message} ({error.kind}){others}")
    return result.vectors
