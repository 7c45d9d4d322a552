"""Models of sentence-transformers, on this machine.

    sentence-transformers/MODEL[@revision][?prefix=…&normalize=true|false&max_tokens=…&precision=float32|bfloat16
        &on_too_long=quarantine|truncate|mean&device=…&batch=…]

MODEL is a name at the Hugging Face hub, or a directory: ./models/tiny, /srv/models/tiny. Without options the vectors are
those of the model's own ``encode``, in float32, but for over-long texts: those it cuts silently, and ``on_too_long=truncate``
is how to ask for that, as for old vectors that were made so. ``prefix`` goes before each text and is percent-encoded:
``prefix=passage:%20`` for e5.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import numpy as np

from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.embedders import weights
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, Rates, RowError, Space, as_images, as_texts
from tasks.embedders.local.devices import Halving, asked_for
from tasks.embedders.local.images import collected, opened
from tasks.embedders.local.lanes import BATCH_OF_CORE, passed
from tasks.embedders.naming import ModelName
from tasks.embedders.sentence_transformers.model import Loaded, Wanted, hub_name, load
from tasks.embedders.texts import OnTooLong, cuts, mean, size, unfit

OPTIONS = ("prefix", "normalize", "max_tokens", "precision", "on_too_long", "device", "batch")
BATCH = 32
"""Texts a forward pass, or images on a device, as the library has it: more is slower on a processor, and may not fit a GPU."""
SLICE = 512
"""Texts between two answers to ``on_made``. Sorted by length beforehand, so that no more is gained by more at once."""
_SPARE = 16
"""More tokens than any tokenizer adds to a text."""


@dataclass(frozen=True)
class SentenceTransformersEmbedder:
    """A model at work. Opening it again is cheap: the model itself is shared by the process."""

    space: Space
    model: Loaded = field(repr=False, compare=False)
    on_too_long: OnTooLong = "quarantine"
    batch: int = BATCH
    images: Halving | None = field(default=None, repr=False, compare=False)
    """The forward pass of images; None where the model takes none."""
    account: ClassVar[None] = None

    @property
    def takes(self) -> frozenset[Kind]:
        return self.model.takes

    @property
    def licence(self) -> str:
        return self.model.licence

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        """``truncate`` or ``mean`` for an over-long text."""
        if self.on_too_long == "quarantine":
            return [""] * len(items)
        cut = self._too_long({row: item for row, item in enumerate(items) if isinstance(item, str)})
        return [self.on_too_long if row in cut else "" for row in range(len(items))]

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        """As Embedder.embed, of texts or of images: vectors are handed over some hundred at a time, long texts first.

        Rejected are empty and blank texts, which all have one vector that means nothing; what is not Unicode; over-long
        texts under ``quarantine``; and texts whose vector is zero or not finite, which no index could find. Of
        images: those that cannot be opened, and again those with such a vector.
        """
        if self.images and items and isinstance(items[0], bytes):
            return self._embed_images(self.images, as_images(self, items), on_made)
        texts = as_texts(self, items)
        vectors = np.zeros((len(texts), self.space.dimensions), np.float32)
        rejected = {row: error for row, text in enumerate(texts) if (error := _unfit(text))}
        parts = self._parts({row: text for row, text in enumerate(texts) if row not in rejected}, rejected)
        for rows in _slices(parts):
            pieces = [piece for row in rows for piece in parts[row]]
            encoded = iter(self.model.encode(pieces, self.space.prefix, self.batch))
            good = []
            for row in rows:
                vector = self._one(np.stack([next(encoded) for _ in parts[row]]), parts[row])
                if np.isfinite(vector).all() and vector.any():
                    vectors[row] = vector
                    good.append(row)
                else:
                    rejected[row] = RowError("refused", "the model's vector of this text is zero or not finite")
            if on_made and good:
                on_made(good, vectors[good])
        return Embedded(vectors, rejected)

    def _embed_images(self, forward: Halving, images: Sequence[bytes], on_made: OnMade | None) -> Embedded:
        through = self.model.pictures
        assert through is not None

        def prepare(image: bytes) -> Any | RowError:
            picture = opened(image)
            return picture if isinstance(picture, RowError) else through.prepare(picture)

        passes = passed(images, prepare, forward, forward.batch, alone=through.on_processor)
        return collected(len(images), self.space.dimensions, passes, self.space.normalized, on_made)

    def _too_long(self, texts: Mapping[int, str]) -> dict[int, int]:
        """The tokens of those texts that have too many."""
        limit = self.model.max_tokens
        if not limit:
            return {}
        # A token covers an ASCII character at least. Of others it may not: some are normalized into several.
        short = limit - _SPARE - size(self.space.prefix) if self.space.prefix.isascii() else -1
        rows = [row for row, text in texts.items() if not (text.isascii() and len(text) <= short)]
        sizes = self.model.tokens([texts[row] for row in rows], self.space.prefix)
        return {row: tokens for row, tokens in zip(rows, sizes, strict=True) if tokens > limit}

    def _parts(self, texts: Mapping[int, str], rejected: dict[int, RowError]) -> dict[int, list[str]]:
        """What is embedded for each row: its text, or under ``mean`` the pieces of an over-long one."""
        parts = {row: [text] for row, text in texts.items()}
        for row, tokens in self._too_long(texts).items():
            pieces = self._cut(texts[row]) if self.on_too_long == "mean" else parts[row]
            if pieces and self.on_too_long != "quarantine":
                parts[row] = pieces
            else:
                del parts[row]
                rejected[row] = RowError(
                    "too_long", f"{counted(tokens, 'token')}, where the model takes {self.model.max_tokens:,}"
                )
        return parts

    def _cut(self, text: str) -> list[str]:
        limit = self.model.max_tokens or 0
        room = limit - self.model.tokens([""], self.space.prefix)[0]
        for _, pieces in cuts(text, room):
            if max(self.model.tokens(pieces, self.space.prefix)) <= limit:
                return [piece for piece in pieces if piece.strip()]
        return []

    def _one(self, vectors: np.ndarray, pieces: Sequence[str]) -> np.ndarray:
        if len(pieces) == 1:
            return vectors[0]
        lengths = [size(piece) for piece in pieces]
        one = mean(vectors, lengths)
        if self.space.normalized:
            return one
        # Among vectors that are not unit ones, a unit vector would be an outlier.
        return one * np.float32(np.average(np.linalg.norm(vectors, axis=1), weights=lengths))


def open_sentence_transformers(
    name: ModelName, budget: Budget | None = None, rates: Rates | None = None
) -> SentenceTransformersEmbedder:
    """The embedder that ``name`` describes, its model in memory; the first time that may download it.

    Raises UsageError for an unknown option or value, where the packages are not installed, and where the model is not to
    be had.
    """
    name.allow(OPTIONS)
    if not name.model:
        raise UsageError(f"embedder {name}: write sentence-transformers/MODEL, or sentence-transformers/./DIRECTORY")
    folder = weights.directory(name)
    normalize = name.one_of("normalize", ("true", "false"))
    precision = name.one_of("precision", ("float32", "bfloat16")) or "float32"
    on_too_long: OnTooLong = name.one_of("on_too_long", get_args(OnTooLong)) or "quarantine"  # type: ignore[assignment]
    batch = name.whole("batch", 1, 100_000) or BATCH
    wanted = Wanted(
        place=folder or hub_name(name),
        revision="" if folder else name.revision,
        precision=precision,
        device=asked_for(name),
        max_tokens=name.whole("max_tokens", 1, 1_000_000),
        normalize=None if normalize is None else normalize == "true",
    )
    model = load(name, wanted)
    prefix = name.options.get("prefix", model.prompt)
    if model.max_tokens and model.tokens([""], prefix)[0] >= model.max_tokens:
        raise UsageError(
            f"embedder {name}: the prompt leaves none of {counted(model.max_tokens, 'token')} for the text"
        )
    space = Space(
        provider=name.provider,
        model="local" if folder else str(wanted.place).removeprefix("sentence-transformers/"),
        dimensions=model.dimensions,
        revision=model.revision,
        preprocessing=_preprocessing(model, precision),
        prefix=prefix,
        normalized=model.normalized,
    )
    return SentenceTransformersEmbedder(space, model, on_too_long, batch, _images(name, model))


def _images(name: ModelName, model: Loaded) -> Halving | None:
    if model.pictures is None:
        return None
    batch = name.whole("batch", 1, 100_000) or (BATCH_OF_CORE if model.pictures.on_processor else BATCH)
    return Halving(model.pictures.forward, f"embedder {name}: its device", batch)


def _preprocessing(model: Loaded, precision: str) -> str:
    limit = [f"max_seq_length={model.max_tokens}"] if model.max_tokens else []
    return "&".join(limit + ([f"precision={precision}"] if precision != "float32" else []))


def _unfit(text: str) -> RowError | None:
    return unfit(text) or (None if text.strip() else RowError("empty", "the text is blank"))


def _slices(parts: Mapping[int, Sequence[str]]) -> Iterator[list[int]]:
    """Rows of like length together, the longest first: a device with too little memory fails at once."""
    rows: list[int] = []
    pieces = 0
    for row in sorted(parts, key=lambda row: -size(parts[row][0])):
        if rows and pieces + len(parts[row]) > SLICE:
            yield rows
            rows, pieces = [], 0
        rows.append(row)
        pieces += len(parts[row])
    if rows:
        yield rows
