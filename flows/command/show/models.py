"""Tables that serve several models, as the command prints them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from flows.command.show.bought import show_bought
from flows.command.show.terminal import bold, out, print_json, print_whole, red, yellow
from tasks.base.errors import UsageError
from tasks.base.words import counted, listed, plural
from tasks.embedders.naming import shown
from tasks.runs.coverage import Coverage
from tasks.runs.registry import RegisteredModel
from tasks.runs.served import Status

if TYPE_CHECKING:
    from flows.served import Planned  # which imports what makes and drops models: no other command waits for it


def show_done(lines: Sequence[str], as_json: bool) -> None:
    """A line for each thing that was made."""
    if as_json:
        print_json({"done": list(lines)})
        return
    for line in lines:
        out.print(line)


def show_changes(planned: "Planned", as_json: bool) -> None:
    """The SQL that would be sent, and what stands in its way. Raises UsageError where something does."""
    if as_json:
        print_json({"sql": planned.sql, "problems": planned.problems, "notes": planned.notes})
    else:
        for line in planned.sql:  # as it is: rich would put blanks for a tab
            print(line if line.startswith("--") else f"  {line};", file=out.file)
        for line in planned.notes:
            out.print(Text.assemble("\n", yellow("note"), f"  {line}"))
        for problem in planned.problems:
            out.print(Text.assemble("\n", red("problem"), f"  {problem}"))
    if planned.problems:
        raise UsageError(f"solve the {plural(len(planned.problems), 'problem')} above first")


def show_models(status: Status, as_json: bool) -> None:
    """A line a model."""
    if as_json:
        print_json(status.as_json()["models"])
        return
    if not status.models:
        out.print("no models yet: vecferry models setup PROVIDER/MODEL adds one")
        return
    print_whole(_table(status))


def show_status(status: Status, as_json: bool) -> None:
    """The tables, the models, the dimensions and the indexes."""
    if as_json:
        print_json(status.as_json())
        return
    tables = status.tables
    out.print(Text.assemble(bold("documents"), f"   {tables.documents}"))
    out.print(Text.assemble(bold("chunks"), f"      {tables.chunks}, text in {tables.chunks.text}"))
    out.print(Text.assemble(bold("embeddings"), f"  {tables.embeddings}, one row a chunk and model"))
    sizes = listed([str(n) for n in status.dimensions]) or "none yet"
    out.print(Text.assemble(bold("dimensions"), f"  {sizes}"))
    out.print()
    show_models(status, as_json=False)
    if status.indexes:
        out.print()
    for index in status.indexes:
        only = f", only where {index.condition}" if index.condition else ""
        state = "" if index.valid else "; not valid: `vecferry models setup` builds it again"
        out.print(f"{index.name}  on {index.column}{only}, {index.bytes / 1e6:,.1f} MB{state}")
    show_bought(status.bought)
    if not status.counted:
        out.print("coverage is not counted yet: `vecferry models init` goes on with it")


def _table(status: Status) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("id", "model", "dimensions", "state", "coverage", "column"):
        table.add_column(head, justify="right" if head == "dimensions" else "left", overflow="fold")
    for model in status.models:
        covered = status.coverage[model.number]
        where = "" if model.place_table == status.tables.embeddings.table else f"{model.place_table}."
        table.add_row(
            model.id,
            shown(model.name),
            str(model.dimensions),
            _state(model),
            _covered(covered),
            f"{where}{model.column}",
        )
    return table


def _state(model: RegisteredModel) -> str:
    if model.active:
        return "active"
    if model.building:
        return "building"
    return "retired" if model.ended else "searched"


def _covered(covered: Coverage) -> str:
    refused = f"; it refuses {covered.refused:,}" if covered.refused else ""
    return f"{covered.with_vector:,} of {counted(covered.chunks, 'chunk')}{refused}"
