"""What was bought outside of runs, as the command prints it."""

from collections.abc import Sequence

from flows.command.show.terminal import out
from tasks.base.words import counted, money
from tasks.runs.purchases import Purchases


def show_bought(bought: Sequence[Purchases]) -> None:
    """A line for each kind of buyer; nothing where nothing was bought."""
    for one in bought:
        out.print(
            f"bought outside of runs by {one.buyer} since {one.since}: {money(one.dollars)}, {money(one.today)} of it today, for "
            f"{counted(one.tokens, 'token')} in {counted(one.requests, 'request')}"
        )
