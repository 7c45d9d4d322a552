"""Plans and parameters, as the command prints them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.command.fields import Parameter
from flows.command.show.terminal import bold, out, print_json, print_whole, red, yellow
from tasks.base.words import counted, duration
from tasks.planning.layouts import LayoutCost
from tasks.planning.planned import Planned


def show_parameters(listed: Iterable[Parameter], as_json: bool) -> None:
    """Two lines a parameter: what it takes, and what for."""
    if as_json:
        print_json([vars(p) for p in listed])
        return
    for p in listed:
        shown = p.default if isinstance(p.default, str) else json.dumps(p.default)
        default = "; required" if p.required else "" if p.default in (None, {}) else f"; default {shown}"
        head = Text.assemble(bold(p.name), f"  {p.type}{default}")
        if out.is_terminal:  # there is no command to be copied in it, so its lines may end between words
            out.print(head, soft_wrap=False)
            out.print(Padding(p.help, (0, 0, 0, 4), expand=False), soft_wrap=False)
        else:
            out.print(head.append(f"\n    {p.help}"))


def show_plan(planned: Planned, next_: str | None, as_json: bool) -> None:
    """``next_`` is the command that does what was planned; None where it cannot be done."""
    if as_json:
        print_json({**_as_json(planned), "next": next_})
        return
    show_figures(planned)
    if planned.sql:
        out.print("\nSQL that changes something:")
    for line in planned.sql:
        # As it is: rich would put blanks for a tab, and leave out other characters of a name or a text.
        print(f"  {line}" if line.startswith("--") else f"  {line};", file=out.file)
    for warning in planned.warnings:
        out.print(Text.assemble("\n", yellow("note"), f"  {warning}"))
    for problem in planned.problems:
        out.print(Text.assemble("\n", red("problem"), f"  {problem}"))
    if next_:
        out.print(f"\nnext    {next_}")


def show_figures(planned: Planned) -> None:
    """Its targets, and what they will take and cost."""
    print_whole(_listing(planned))
    out.print()
    for line in _figures(planned):
        out.print(line)


def _listing(planned: Planned) -> Table:
    """The table that this kind of plan brings, its numbers to the right."""
    table = Table(box=None, pad_edge=False)
    rows = [[cell or "–" for cell in row] for row in planned.listing.rows]
    for head, *cells in zip(planned.listing.heads, *rows, strict=True):
        numbers = all(cell.replace(",", "").isdigit() for cell in cells)
        table.add_column(head, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _figures(planned: Planned) -> Iterator[str]:
    """What the run will take and cost, a line each."""
    takes = f"about {duration(planned.seconds)} and {planned.storage_bytes / 1e6:,.1f} MB"
    yield f"{counted(planned.rows, 'row')} in {counted(planned.batches, 'batch')}; {takes}"
    if planned.copied_bytes:
        yield (
            f"the directory is read from a private copy of {planned.copied_bytes / 1e6:,.1f} MB, which is "
            "removed afterwards; the directory itself stays as it is"
        )
    if cost := planned.cost:
        about = "" if cost.exact else "about "
        spent, most_spent = (
            (f"${cost.dollars:.4f}", f"${cost.most_dollars:.4f}") if cost.price is not None else ("", "")
        )
        most = "" if cost.exact else f", at most {counted(cost.most_tokens, 'token')}{_and(most_spent)}"
        kept = f"; {counted(cost.kept, 'more text', 'are')} kept already" if cost.kept else ""
        tokens = f"{about}{counted(cost.tokens, 'token')}{_and(spent)}"
        yield f"{counted(cost.texts, 'distinct text')} to embed: {tokens}{most}{kept}"
        if cost.price is None:
            yield "the price of the model is not known; ?price= after its name gives it, in dollars per million tokens"
    if planned.allowed and planned.least_seconds is not None:
        limits = ((planned.allowed.requests, "request"), (planned.allowed.tokens, "token"))
        allowed = " and ".join(counted(round(limit), what) for limit, what in limits if limit)
        least = duration(planned.least_seconds)
        yield (
            f"the account allows {allowed} a minute, so embedding takes at least {least}"
            if allowed
            else "the server does not state the account's limits"
        )
    for more in planned.more:
        yield from more.lines
    yield from map(_layout, planned.layouts)


def _and(dollars: str) -> str:
    return f" and {dollars}" if dollars else ""


def _as_json(planned: Planned) -> dict[str, Any]:
    return {
        "flow": planned.plan.request.flow,
        "rows": planned.rows,
        "batches": planned.batches,
        "storage_bytes": planned.storage_bytes,
        "copied_bytes": planned.copied_bytes,
        "seconds": round(planned.seconds),
        "targets": [
            {
                "name": t.collection.name,
                "table": t.name,
                "mode": t.place.kind,
                "rows": t.collection.count,
                "dimensions": t.dimensions,
                "metric": t.collection.metric,
                "type": t.place.vector_type,
                "metadata": look.metadata,
            }
            for t, look in zip(planned.plan.targets, planned.looks, strict=True)
        ],
        "sql": planned.sql,
        "cost": planned.cost
        and {**vars(planned.cost), "dollars": planned.cost.dollars, "most_dollars": planned.cost.most_dollars},
        "limits": planned.allowed and {**vars(planned.allowed), "seconds": planned.least_seconds},
        "layouts": [asdict(layout) for layout in planned.layouts],
        **_more(planned),
        "problems": planned.problems,
        "warnings": planned.warnings,
    }


def _more(planned: Planned) -> dict[str, list[Any]]:
    """Name → what there is of it, mostly one for each target."""
    names = dict.fromkeys(more.name for more in planned.more)
    return {name: [dict(more.values) for more in planned.more if more.name == name] for name in names}


def _layout(layout: LayoutCost) -> str:
    """public.docs: layout=column adds 30.2 MB and rewrites 3,000 rows, with their entries in docs_pkey (btree, 0.1 MB)"""
    would = "" if layout.chosen else "would "
    add, leave, rewrite = ("add", "leave", "rewrite") if would else ("adds", "leaves", "rewrites")
    entries = ", ".join(f"{index.name} ({index.method}, {index.bytes / 1e6:,.1f} MB)" for index in layout.indexes)
    what = f"{rewrite} {counted(layout.rows, 'row')}" if layout.layout == "column" else f"{leave} the table as it is"
    into = f", with their entries in {entries}" if entries else ""
    return f"{layout.table}: layout={layout.layout} {would}{add} {layout.bytes / 1e6:,.1f} MB and {what}{into}"
