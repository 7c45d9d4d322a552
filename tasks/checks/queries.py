"""Queries that must be answered: texts, each with the row that people expect among the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.base.words import counted
from tasks.checks.benchmark import Answer
from tasks.checks.gates import Gates
from tasks.checks.measures import Check
from tasks.checks.query_file import Query, named, read_queries
from tasks.embedders.interface import RowError
from tasks.runs import spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.stores.exact_search import similarity
from tasks.stores.interface import Hits, Metric, Records

DEEP = 100
"""Rows among which an answer is looked for that is not among the first, every row being compared."""
SHOWN = 20
"""Queries that notes are made of, those without their answer first."""


@dataclass(frozen=True)
class Answered:
    """What came of the queries."""

    checks: list[Check]
    notes: list[str]
    answers: tuple[Answer, ...] = ()


def query_checks(run: Run, target: Target[Any], made: Records, gates: Gates) -> Answered:
    """Asks the new vectors the run's queries that have an expected answer, as people ask them; nothing where there are none.
    Raises UsageError for a file of queries that cannot be read."""
    path, model = run.plan.request.queries, run.plan.request.embedder
    queries = [query for query in read_queries(path) if query.expected] if path and model else []
    if not queries or not model:
        return Answered([], [])
    wanted, embedder = f"each within {gates.recall_k}", spending.embedder_of(run, model)
    if "text" not in embedder.takes:
        failed = Check("queries", False, len(queries), f"{model} cannot embed texts", wanted)
        return Answered([failed], [])
    embedded = embedder.embed([query.text for query in queries])
    able = [at for at in range(len(queries)) if at not in embedded.rejected]

    def answered(chosen: list[int], k: int, effort: int) -> dict[int, Answer]:
        hits = made.search(embedded.vectors[chosen], k, effort) if chosen else []
        return dict(zip(chosen, _answers(target, made, [queries[at] for at in chosen], hits), strict=True))

    first = answered(able, gates.recall_k, max(40, target.collection.ef_search, gates.recall_k))
    answers = tuple(first.get(at, Answer(query.text, query.expected)) for at, query in enumerate(queries))
    deep = answered([at for at in able if answers[at].rank is None], DEEP, 0)
    right = sum(answer.rank is not None for answer in answers)
    result = f"{right:,} of {counted(len(answers), 'query', 'are')} answered"
    check = Check("queries", right == len(answers), len(answers), result, wanted, gate="recall_k")
    # A smoke run may lack the answer, and of several targets nobody says which is asked: there it is a report.
    decides = not run.plan.limited and len(run.plan.targets) == 1
    notes = _notes(answers, deep, embedded.rejected, made.metric, gates.recall_k)
    return Answered([check] if decides else [], notes, answers)


def _answers(target: Target[Any], made: Records, queries: Sequence[Query], hits: Sequence[Hits]) -> tuple[Answer, ...]:
    names = named(target.content, made, hits)
    answers = []
    for query, hit in zip(queries, hits, strict=True):
        at = next((at for at, i in enumerate(hit.ids) if not names[i].isdisjoint(query.expected)), None)
        if at is None:
            answers.append(Answer(query.text, query.expected))
        else:
            distance = float(hit.distances[at])
            answers.append(Answer(query.text, query.expected, at + 1, similarity(made.metric, distance), distance))
    return tuple(answers)


def _notes(
    answers: Sequence[Answer], deep: Mapping[int, Answer], refused: Mapping[int, RowError], metric: Metric, k: int
) -> list[str]:
    order = sorted(range(len(answers)), key=lambda at: answers[at].rank is not None)
    lines = []
    for at in order[:SHOWN]:
        answer = deep.get(at, answers[at])
        if at in refused:
            lines.append(
                f"query {answer.query!r}: the model has no vector of it, {refused[at].message} ({refused[at].kind})"
            )
            continue
        place = f"at place {answer.rank}, {_score(answer, metric)}" if answer.rank else f"not among the first {DEEP}"
        late = f"is not among the first {k}; when every row is compared it is " if at in deep else "is "
        lines.append(f"query {answer.query!r}: {' or '.join(answer.expected)} {late}{place}")
    if len(order) > SHOWN:
        lines.append(f"{counted(len(order) - SHOWN, 'more query', 'are')} in report.json")
    return lines


def _score(answer: Answer, metric: Metric) -> str:
    return f"distance {answer.distance:.3f}" if metric == "l2" else f"score {answer.score:.3f}"
