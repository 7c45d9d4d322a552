"""What a search by models came to, and what was ingested, as the command prints it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.client import Answer, Hit, Key, as_json
from flows.command.show.searched import LONGEST
from flows.command.show.terminal import note, out, print_json
from tasks.base.words import counted, listed, plural
from tasks.embedders.naming import shown


@dataclass(frozen=True)
class Ingested:
    """A file that is a document now."""

    file: Path
    document_id: Key
    chunks: int
    new: bool
    """Whether it was not there before."""


def show_answer(query: str, answer: Answer, in_json: bool) -> None:
    """For a person a line a chunk: its document's title, its text, and how near it is; why nothing was found, on standard
    error."""
    if in_json:
        print_json({"query": query, **as_json(answer), "notes": answer.notes})
        return
    names = listed([shown(searched.model) for searched in answer.searched])
    fused = f" ({answer.aggregation})" if answer.aggregation else ""
    out.print(f"Found {counted(len(answer), 'chunk')} by {names}{fused}")
    for hit in answer:
        out.print(f"  {hit.rank}. {_shown(hit)} ({_nearness(hit, bool(answer.aggregation))})")
    for line in answer.notes:
        note(line)


def show_ingested(ingested: Sequence[Ingested], model: str, in_json: bool) -> None:
    """A line a file."""
    if in_json:
        documents = [
            {"file": str(i.file), "document_id": as_json(i.document_id), "chunks": i.chunks, "new": i.new}
            for i in ingested
        ]
        print_json({"model": model, "documents": documents})
        return
    for one in ingested:
        already = "" if one.new else " already"
        out.print(f"{one.file}: document {one.document_id}{already}, {counted(one.chunks, 'chunk')} by {shown(model)}")


def _shown(hit: Hit) -> str:
    words = " ".join(hit.content.split())
    line = f"{hit.title}: {words}" if hit.title else words
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _nearness(hit: Hit, fused: bool) -> str:
    if not fused:
        return f"similarity {hit.similarity:.3f}"
    return f"{plural(len(hit.models), 'rank')} " + ", ".join(
        f"{ranked.rank} by {shown(ranked.model)}" for ranked in hit.models
    )
