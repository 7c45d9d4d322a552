"""How a server wants to be asked, found out by one small request of two short texts, or a few where it refuses the first."""

import re
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from tasks.base.errors import FatalError
from tasks.embedders.openai.answers import Decoded
from tasks.embedders.openai.asking import Asking, Refused
from tasks.embedders.openai.sending import ENCODINGS, Shape
from tasks.embedders.openai.server import ATTEMPTS, PROBES, Ask, Server, Terms
from tasks.embedders.texts import size

_OF_DIMENSIONS = re.compile(r"dimension|matryoshka", re.IGNORECASE)
_OF_ENCODING = re.compile(r"encoding|base64", re.IGNORECASE)


@dataclass(frozen=True)
class Probe:
    """What one small request found out about a model at a server."""

    dimensions: int
    norm: float
    shape: Shape


def probed(server: Server, terms: Terms, sends_dimensions: bool, attempts: int = ATTEMPTS) -> Probe:
    """Asks once a process how the model is to be asked; later calls return what came out.

    Raises FatalError when no way of asking is accepted, or the vectors are not of ``terms.dimensions``.
    """
    with server.probing:
        if (probe := server.probes.get(terms.dimensions)) is None:
            probe = _probe(server, terms, terms.dimensions if sends_dimensions else None, attempts)
            server.probes[terms.dimensions] = probe
        return probe


def _probe(server: Server, terms: Terms, dimensions: int | None, attempts: int) -> Probe:
    refusals: list[Refused] = []
    shapes, texts = _shapes(dimensions), list(PROBES)
    while shapes:
        shape = shapes.pop(0)
        ask = Ask(texts, partial(sum, [*map(size, texts)]), shape, terms)
        try:
            answer = Asking(server, ask, attempts=attempts, first=True).run()
        except FatalError as error:
            if refusals and dimensions is not None and shape.dimensions is None:
                refused = next((one for one in refusals if _OF_DIMENSIONS.search(_words(one))), refusals[0])
                raise server.fail(f"{refused.message}; asked without dimensions={dimensions}: {error}") from None
            raise
        if isinstance(answer, Decoded):
            return Probe(answer.vectors.shape[1], float(np.linalg.norm(answer.vectors, axis=1).mean()), shape)
        if answer.verdict == "doubtful":
            raise server.fail(answer.message)
        if answer.verdict == "too_many" and len(texts) > 1:
            shapes, texts, server.sizes.told = [shape, *shapes], texts[:1], 1
            continue
        refusals.append(answer)
        shapes = _left(shapes, shape, _words(answer))
    raise server.fail(
        f"{refusals[0].message}; it was asked for two short texts, with and without base64, encoding_format and dimensions"
    )


def _shapes(dimensions: int | None) -> list[Shape]:
    """The ways to ask, the usual ones first."""
    asked = (dimensions, None) if dimensions is not None else (None,)
    return [Shape(encoding, sent) for sent, encoding in product(asked, ENCODINGS)]


def _left(shapes: list[Shape], refused: Shape, words: str) -> list[Shape]:
    """Those that may still be taken, by what the refusal says is wrong."""
    of_dimensions, of_encoding = bool(_OF_DIMENSIONS.search(words)), bool(_OF_ENCODING.search(words))
    if of_dimensions and not of_encoding and refused.dimensions is not None:
        return [shape for shape in shapes if shape.dimensions is None]
    if of_encoding and not of_dimensions:
        return [shape for shape in shapes if shape.encoding != refused.encoding]
    return shapes


def _words(refused: Refused) -> str:
    return f"{refused.param} {refused.words}"
