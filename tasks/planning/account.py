"""What a model that is paid for will cost, by the texts and by its account. Writes nothing."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.embedders.interface import Space
from tasks.embedders.registry import open_embedder
from tasks.planning.planned import Cost, Planned
from tasks.runs import ledger
from tasks.runs.vectors import keyed
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection


def unopened(model: str) -> Iterator[str]:
    """Why the model cannot be asked, such as for want of a key."""
    try:
        open_embedder(model)
    except UsageError as error:
        yield str(error)


def is_paid(model: str | None) -> bool:
    """Whether the model costs money."""
    return model is not None and open_embedder(model).account is not None


def cost_of(connection: Connection, model: str, pages: Iterable[list[str]]) -> Cost | None:
    """What the texts will cost of which there is no vector yet, each once; None where the model costs nothing, and then no
    page is read. Memory: 8 bytes a different text."""
    embedder = open_embedder(model)
    account = embedder.account
    if account is None:
        return None
    seen, indexed, exact = Seen(), ledger.exists(connection), account.count("") is not None
    fresh = known = tokens = bytes_ = 0
    for page in pages:
        keys, whole = keyed(embedder, page)
        new = [at for at, is_new in enumerate(seen.note(keys)) if is_new]
        sought = [key for at in new for key in (keys[at], whole.get(keys[at])) if key]
        kept = _kept(connection, embedder.space, sought, set(whole)) if indexed and new else set()
        texts = [page[at] for at in new if keys[at] not in kept and whole.get(keys[at]) not in kept]
        fresh, known = fresh + len(texts), known + len(new) - len(texts)
        bytes_ += sum(len(text.encode()) for text in texts)
        tokens += sum(account.count(text) or 0 for text in texts)
    return Cost(fresh, known, tokens if exact else bytes_ // 4, exact, tokens if exact else bytes_, account.price)


def unpriced(models: Iterable[str | None], budget: float | None) -> Iterator[str]:
    """That a budget cannot hold, where the price of a model is not known."""
    for model in models if budget is not None else ():
        account = open_embedder(model).account if model else None
        if account and account.price is None:
            yield (
                f"embedder {model!r}: its price is not known, so that budget_usd cannot hold: add price= to its name, in dollars "
                "per million tokens (?price=0.02; ?price=0 where it costs nothing)"
            )


def over_budget(cost: Cost | None, budget: float | None) -> Iterator[str]:
    """That the money will not last, where it will not."""
    if cost and budget is not None and cost.price is not None and cost.dollars > budget:
        yield f"about ${cost.dollars:.4f} is needed and budget_usd is ${budget:.4f}: the run will stop there"


def ask_account(planned: Planned) -> Planned:
    """The plan with the limits of the account that is to pay, which one request of two short texts tells. A key that is
    refused is a problem of the plan; that nobody answers is only said."""
    if planned.cost is None:
        return planned
    account = open_embedder(planned.plan.request.embedder or "").account
    assert account
    try:
        allowed = account.allowed()
        least = account.least_seconds(planned.cost.texts, planned.cost.tokens)
        return replace(planned, allowed=allowed, least_seconds=least)
    except FatalError as error:
        return replace(planned, problems=[*planned.problems, str(error)])
    except TransientError as error:
        unknown = f"neither the limits of the account nor its key could be checked: {error}"
        return replace(planned, warnings=[*planned.warnings, unknown])


@dataclass
class Seen:
    """Which contents came before, by eight bytes of their keys, in sorted runs of doubling length."""

    _runs: list[np.ndarray] = field(default_factory=list)

    def note(self, keys: list[bytes]) -> list[bool]:
        """Whether each is new, within the page too; none is afterwards."""
        heads = np.array([int.from_bytes(key[:8], "big") for key in keys], np.uint64)
        unique, first = np.unique(heads, return_index=True)
        new = np.ones(len(unique), bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            new &= run[at] != unique
        if new.any():
            self._add(unique[new])
        chosen = np.zeros(len(keys), bool)
        chosen[first[new]] = True
        return chosen.tolist()

    def _add(self, run: np.ndarray) -> None:
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)


def _kept(connection: Connection, space: Space, keys: list[bytes], parts: Collection[bytes]) -> set[bytes]:
    """Those that are kept, or can be cut from what is; of ``parts`` only themselves."""
    kept = _in_space(connection, space.fingerprint, keys)
    if space.longer:
        whole = [key for key in keys if key not in kept and key not in parts]
        kept |= _in_space(connection, replace(space, dimensions=space.longer, longer=None).fingerprint, whole)
    return kept


def _in_space(connection: Connection, space: str, keys: list[bytes]) -> set[bytes]:
    kept: set[bytes] = set()
    with pace.turn(connection) as turn:
        for part in turn.cut(len(keys)):
            rows = connection.execute(
                "SELECT content FROM vecferry.vector WHERE space = %s AND content = ANY(%b::bytea[])",
                (space, keys[part]),
                binary=True,
            )
            kept.update(content for (content,) in rows)
    return kept
