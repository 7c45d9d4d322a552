"""Counts in plain English. Every message that counts goes through here; tests/base/test_words.py holds them to it."""

import math
import shlex
from collections.abc import Sequence


def counted(count: float, noun: str, verb: str = "") -> str:
    """``1 batch``, ``2 batches``, ``0.5 days``; with a verb, given in its plural, that agrees with it: ``1 batch was``."""
    number = f"{count:,g}" if isinstance(count, float) else f"{count:,}"
    return f"{number} {plural(count, noun)}" + (f" {agreeing(count, verb)}" if verb else "")


def plural(count: float, noun: str) -> str:
    """The noun as it goes with so many, without the number: ``batch``, ``batches``."""
    if count == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith(("ch", "s", "x")) else f"{noun}s"


def agreeing(count: float, verb: str) -> str:
    """The verb or pronoun, given in its plural, as it goes with so many."""
    return SINGULAR[verb] if count == 1 else verb


SINGULAR = {
    "were": "was",
    "are": "is",
    "have": "has",
    "differ": "differs",
    "belong": "belongs",
    "stay": "stays",
    "use": "uses",
    "them": "it",
    "they": "it",
    "their": "its",
    "go": "goes",
}


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def some(names: Sequence[str], most: int = 3) -> str:
    """``a, b and c``; where there are many, ``a, b, c and 9 others``."""
    rest = len(names) - most
    return listed(names if rest < 2 else [*names[:most], counted(rest, "other")])


def batches_named(numbers: Sequence[int]) -> str:
    """Batch 3, or batches 0 to 5; no dash, which the timeline of Prefect's V1 interface does not draw."""
    return f"batch {numbers[0]}" if len(numbers) == 1 else f"batches {numbers[0]} to {numbers[-1]}"


def typed(argument: str) -> str:
    """As it is typed in a shell: quoted where it has to be."""
    return shlex.quote(argument)


def money(dollars: float) -> str:
    """$0.1234; of less than that, as many digits as tell how much it is: $0.000016."""
    digits = max(4, 1 - math.floor(math.log10(dollars))) if dollars > 0 else 4
    written = f"{dollars:.{digits}f}"
    return f"${written[:-1] if digits > 4 and written.endswith('0') else written}"


def duration(seconds: float) -> str:
    """12 s, 5 min or 2.5 h."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
