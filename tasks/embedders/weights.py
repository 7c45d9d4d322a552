"""Models in a local directory: which names mean one, and by what such a model is known."""

import hashlib
import re
from pathlib import Path

from tasks.base.errors import UsageError
from tasks.embedders.naming import ModelName

_MARKS = ("modules.json", "config.json")
"""What a saved model has one of."""
_BESIDE = ("", "readme", "license", "licence", "notice", "__pycache__", "onnx", "openvino")
"""Names, to the first dot, of what no vector depends on: hidden files, papers, exports for other runtimes."""
_LICENCE = re.compile(r"---\n(?:(?!---).*\n)*?license:[ \t]*(\S+)")
"""In the head of a model's card, which is YAML."""


def directory(name: ModelName) -> Path | None:
    """The directory that a name such as ``timm/./models/tiny`` means, resolved; None where it means no directory.

    Raises UsageError where there is no such directory, or no model in it.
    """
    if not name.model.startswith((".", "/", "~")):
        return None
    written = f"{name.model}@{name.revision}" if name.revision else name.model  # a path may hold an @
    path = Path(written).expanduser().resolve()
    if not path.is_dir():
        raise UsageError(f"embedder {name}: there is no directory {written!r}")
    if not any((path / file).is_file() for file in _MARKS):  # said before all of it is read
        raise UsageError(f"embedder {name}: {path} holds no model: neither {' nor '.join(_MARKS)} is in it")
    return path


def digest(folder: Path) -> str:
    """32 hex digits of the files of a model, by content and by name within the directory.

    By content, though that reads them all, a gigabyte in about a second: a fine-tuned model has the names and sizes of the
    one that it was made from, and times change with every copy. Not by where the directory is: a model that moves stays
    itself. A file that might decide about vectors counts, for taking two models for one is worse than embedding again.
    """
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not beside("/".join(parts)):
            with path.open("rb") as file:
                whole.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()} {'/'.join(parts)}\n".encode())
    return whole.hexdigest()[:32]


def beside(file: str) -> bool:
    """Whether no vector depends on that file of a model, named by its path within the model."""
    return any(part.partition(".")[0].lower() in _BESIDE for part in file.split("/"))


def licence(folder: Path) -> str:
    """The licence that the model's card states, as it is written there; "" where it states none."""
    card = folder / "README.md"
    match = _LICENCE.match(card.read_text(errors="replace")) if card.is_file() else None
    return match[1].strip("'\"") if match else ""
