"""Texts into requests: how many tokens a text has, and how many texts fit into a request.

Tokens are counted exactly where tiktoken and its vocabulary are at hand. Elsewhere the UTF-8 bytes stand for them: every
token of a byte-pair encoding covers at least one byte, so that is an upper bound, about four times too high for English.
"""

import hashlib
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tasks.embedders.openai.limits import MAX_INPUTS, MAX_TOKENS
from tasks.embedders.texts import size

MAX_INPUT_TOKENS = 8192
"""OpenAI's API reference, "Create embeddings": tokens an input."""

# What tiktoken calls the file of cl100k_base, the encoding of all three models, in its cache, and what it must hold.
_VOCABULARY = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
_VOCABULARY_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"


@dataclass(frozen=True)
class TokenCount:
    """How many tokens a text has."""

    tokens: int
    exact: bool
    """Whether they were counted; else ``tokens`` is an upper bound."""


def count_tokens(text: str) -> TokenCount:
    """The tokens of ``text`` for OpenAI's embedding models. Never touches the network."""
    if encode := _encoder():
        return TokenCount(len(encode(text)), True)
    return TokenCount(size(text), False)


@lru_cache(maxsize=1)
def _encoder() -> Callable[[str], Sequence[int]] | None:
    """tiktoken's encoder if it can be had without a download. tiktoken fetches a missing vocabulary, and fetches again
    one that is damaged; so the file is looked for, and checked, before it is asked."""
    # The same places, in the same order, as tiktoken's own cache.
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    file = Path(folder) / hashlib.sha1(_VOCABULARY.encode()).hexdigest()
    try:
        import tiktoken  # type: ignore[import-not-found,unused-ignore]

        if not folder or hashlib.sha256(file.read_bytes()).hexdigest() != _VOCABULARY_SHA256:
            return None
        encode: Callable[[str], Sequence[int]] = tiktoken.get_encoding("cl100k_base").encode_ordinary
    except (ImportError, OSError):
        return None
    return encode


class TokensPerByte:
    """How many tokens a byte of these texts has: 1 until the server's own counts say less. Threads share it.

    Of the last twenty answers the highest counts, and a tenth is added: texts of one table differ little from request
    to request, and a request that is too large after all is split.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=20)
        self._uncounted = False
        self._lock = threading.Lock()

    @property
    def value(self) -> float:
        with self._lock:
            return min(1.0, 1.1 * max(self._seen)) if self._seen else 1.0

    @property
    def known(self) -> bool:
        """Whether the server has counted, or is known not to count. Before that, large requests would reserve four
        times what they use, and wait for it."""
        with self._lock:
            return self._uncounted or bool(self._seen)

    def learn(self, count: int, tokens: int | None) -> None:
        """``tokens`` are what the server counted in ``count`` bytes; None where it does not count."""
        self._uncounted |= tokens is None
        if tokens is None:
            return
        if count >= 2_000 and tokens > 0:  # a few short texts say nothing about the next thousand
            with self._lock:
                self._seen.append(tokens / count)


@dataclass(frozen=True)
class Caps:
    """What one request may hold."""

    inputs: int = MAX_INPUTS
    tokens: float = MAX_TOKENS
    alone: float = MAX_INPUT_TOKENS
    """An input of more tokens than this may be refused, so it goes alone and takes no other with it."""


def take(tokens: Sequence[float], start: int, caps: Caps) -> int:
    """The end of the longest request that starts at ``start``: at least one input, else within ``caps``."""
    end, total = start, 0.0
    while end < len(tokens) and end - start < max(caps.inputs, 1):
        total += tokens[end]
        if end > start and (total > caps.tokens or tokens[end] > caps.alone):
            break
        end += 1
        if tokens[end - 1] > caps.alone:
            break
    return end
