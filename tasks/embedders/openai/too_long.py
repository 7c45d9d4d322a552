"""What servers say of a text that is too long for their model, and how many tokens they say it may have."""

import re

_SAYS = re.compile(
    r"context.?(length|size|window)|too long|input length|too many tokens|less than \d+ tokens|tokens exceed"
    r"|max\w* \d* ?tokens|exceeds? \d+ tokens|too large to process|number of tokens|sequence length|longer than the maximum",
    re.IGNORECASE,
)
_STATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"less than (\d+) tokens",
        r"(?:maximum |max(?:imum)?_?)?context (?:length|size|window)(?: is| of)?(?: only)? \(?(\d+)",
        r"(?:at most|maximum(?: of)?|max|exceeds?|limit(?: of| is)?|up to|only)\W{1,3}(\d+) tokens",
        r"max\w*[ _](?:input|sequence|model|seq)?[ _]?len(?:gth)?\W{0,4}(?:is |of )?(\d+)",
        r"\d+(?: tokens)? > (\d+)",
        r"tokens?\b.{0,40}\b(?:at most|maximum|max|limit|exceeds?)\b[^\d]{0,30}(\d+)",
        r"(?:batch|ubatch) size\W{0,4}(?:is |of )?(\d+)",
    )
]
LEAST = 16
"""No model takes fewer tokens: a smaller number means something else."""


def says_too_long(words: str) -> bool:
    """Whether a refusal is one of a text that is too long for the model."""
    return bool(_SAYS.search(words))


def stated_limit(words: str) -> int | None:
    """The tokens that a text may have, as the refusal says; None where it does not."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", words)
    for pattern in _STATES:
        if (stated := pattern.search(plain)) and int(stated[1]) >= LEAST:
            return int(stated[1])
    return None
