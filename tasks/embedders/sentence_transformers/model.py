"""A model of sentence-transformers in this process: loaded once, shared by all threads, used by one at a time."""

import copy
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tasks.base.errors import FatalError, UsageError
from tasks.base.words import counted, listed
from tasks.embedders import weights
from tasks.embedders.interface import Kind
from tasks.embedders.local import devices, packages, torchvision_repair
from tasks.embedders.local.hub import Repository, line
from tasks.embedders.local.loading import loaded_once
from tasks.embedders.naming import ModelName
from tasks.embedders.sentence_transformers.pictures import Pictures, grey

CACHE = "SENTENCE_TRANSFORMERS_HOME"
"""Where the library keeps what it downloads; unset, where the hub's own client does."""
NEEDED = ("torch", "sentence_transformers", "huggingface_hub")
_PROBE = "a"
_UNLIMITED = 10**9
"""Tokenizers that know no limit say 10³⁰."""


@dataclass(frozen=True)
class Wanted:
    """Which model, and what was asked to be different about it; two equal ones are one model in memory."""

    place: Path | str
    """A directory, or a name at the hub with its organisation."""
    revision: str = ""
    precision: str = "float32"
    device: str = ""
    max_tokens: int | None = None
    normalize: bool | None = None


class Loaded:
    """The model, in memory."""

    def __init__(self, model: Any, wanted: Wanted, revision: str, licence: str) -> None:
        """Raises ValueError where the model cannot do what is wanted of it."""
        self.revision = revision
        self.licence = licence
        """Of its weights; "" where nothing is stated."""
        self.takes: frozenset[Kind] = frozenset(kind for kind in get_args(Kind) if model.supports(kind))
        if not self.takes:
            raise ValueError(f"it takes {listed([*map(str, model.modalities)])}, neither texts nor images")
        self._wanted = wanted
        self._model = model
        self._lock = threading.Lock()
        self.pictures = Pictures(model, self._lock) if "image" in self.takes else None
        """What its images go through; None where it takes none."""
        # A string that looks like the path or the URL of an image is opened as one; a dict says that it is text. What
        # knows text alone opens nothing, and some of it takes no dict.
        self._as_dicts = set(model.modalities) != {"text"}
        last, module = list(model.named_children())[-1]
        normalizes = type(module).__name__ == "Normalize"
        if normalizes and wanted.normalize is False:
            from torch.nn import Identity

            setattr(model, last, Identity())
        self.normalized = normalizes if wanted.normalize is None else wanted.normalize
        self._normalize = self.normalized and not normalizes
        self.prompt: str = model.prompts.get(model.default_prompt_name) or ""
        """What the model itself puts before a text."""
        own_limit = _limit(model) if "text" in self.takes else None
        if wanted.max_tokens and not own_limit:
            raise ValueError("it takes texts of any length, so there is no max_tokens to set")
        if wanted.max_tokens:
            model.max_seq_length = wanted.max_tokens
        self.max_tokens = own_limit and _limit(model)
        """Tokens of a text that reach the model, special ones and prefix included; None without a limit."""
        # A copy: the tokenizer keeps its truncation between calls, and counting must not change how texts are encoded.
        self._tokenizer = copy.deepcopy(model.tokenizer) if self.max_tokens else None
        self._counting = threading.Lock()
        self.dimensions = self._dimensions()
        """Measured, since not every model says."""
        if self.max_tokens and own_limit and self.max_tokens > own_limit:
            try:
                self.encode([f"{_PROBE} " * self.max_tokens], "", 1)
            except Exception as error:
                raise ValueError(f"it has no room for {counted(self.max_tokens, 'token')}: {line(error)}") from error

    def _dimensions(self) -> int:
        if self.pictures and "text" not in self.takes:
            return self.pictures.forward([self.pictures.prepare(grey())]).shape[1]
        return self.encode([_PROBE], "", 1).shape[1]

    def encode(self, texts: Sequence[str], prompt: str, batch: int) -> np.ndarray:
        """float32[len(texts), dimensions]; ``prompt`` before each text, ``batch`` of them a forward pass.

        Sorted by length, so that hundreds at once take far less time than a few at once. An over-long text is cut
        silently. Raises FatalError when the device has too little memory.
        """
        from torch import OutOfMemoryError

        try:
            with self._lock:
                encoded = self._model.encode(
                    [{"text": text} for text in texts] if self._as_dicts else list(texts),
                    prompt=prompt,
                    batch_size=batch,
                    normalize_embeddings=self._normalize,
                    show_progress_bar=False,
                )
        except OutOfMemoryError:
            raise FatalError(
                f"{self._wanted.place}: {self._model.device} has too little memory for {counted(batch, 'text')} "
                f"at once: set batch={max(batch // 2, 1)}"
            ) from None
        vectors = np.asarray(encoded, np.float32)
        if self.normalized and self._wanted.precision != "float32":
            # Normalized in eight bits of mantissa, lengths are off by some thousandths.
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def tokens(self, texts: Sequence[str], prompt: str) -> list[int]:
        """How many tokens each text has, prompt and special ones included; only for models with ``max_tokens``."""
        if not texts:
            return []
        assert self._tokenizer is not None
        with self._counting:
            tokenized = self._tokenizer(
                [prompt + text for text in texts], truncation=False, return_attention_mask=False, verbose=False
            )
        return [len(ids) for ids in tokenized["input_ids"]]


_loaded: dict[Wanted, Loaded] = {}
"""Process-wide: weights take gigabytes, and serve any run and any query."""


def load(name: ModelName, wanted: Wanted) -> Loaded:
    """The model that ``name`` asks for; from the second call on, the same one.

    Raises UsageError, in one line, where the packages are not installed, or the model is not there or not usable.
    """
    return loaded_once(_loaded, wanted, partial(_load, name, wanted))


def _load(name: ModelName, wanted: Wanted) -> Loaded:
    packages.require(name, NEEDED)
    commit = None
    if not isinstance(wanted.place, Path):
        repository = Repository(name, wanted.place, os.environ.get(CACHE))
        commit = repository.commit()
        repository.check_room(commit)
    try:
        revision = commit or weights.digest(Path(wanted.place))
        torchvision_repair.repair()
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar for reading one file, on every start
        dtype = getattr(torch, wanted.precision)
        model = SentenceTransformer(
            str(wanted.place),
            revision=commit,
            local_files_only=commit is None,
            device=devices.chosen(wanted.device) if wanted.device else None,
            model_kwargs={"dtype": dtype},
        )
        if model.dtype != dtype:  # not every kind of model obeys when it is loaded
            model.to(dtype)
        licence = weights.licence(wanted.place) if isinstance(wanted.place, Path) else model.model_card_data.license
        return Loaded(model, wanted, revision, licence or "")
    except Exception as error:
        raise UsageError(f"embedder {name}: {wanted.place} cannot be used: {line(error)}") from error


def hub_name(name: ModelName) -> str:
    """The model's name at the hub; without an organisation it is the library's own.

    Raises UsageError for what is no such name.
    """
    place = name.model if "/" in name.model else f"sentence-transformers/{name.model}"
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", place):
        raise UsageError(
            f"embedder {name}: write sentence-transformers/MODEL or sentence-transformers/ORGANISATION/MODEL, "
            "or a directory: sentence-transformers/./DIRECTORY"
        )
    if os.path.isdir(place):  # the library would take it for the model
        raise UsageError(f"embedder {name}: {place} is a directory here: write sentence-transformers/./{place} for it")
    return place


def _limit(model: Any) -> int | None:
    limit = model.max_seq_length
    return int(limit) if limit and limit < _UNLIMITED and callable(getattr(model, "tokenizer", None)) else None
