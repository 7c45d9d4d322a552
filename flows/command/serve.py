"""What ``vecferry serve`` does: the service, until Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from flows.command import completion
from flows.command.arguments import pairs
from flows.command.show import terminal
from flows.forms.form import parse
from flows.forms.models import Serve
from flows.service.options import TOKEN, Options
from tasks.embedders.bare_names import with_provider

DEFAULT = Options()


def command(
    host: Annotated[str, typer.Option("--host", help="the address to listen on", metavar="HOST")] = DEFAULT.host,
    port: Annotated[int, typer.Option("--port", help="the port", min=1, max=65535, metavar="PORT")] = DEFAULT.port,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="a model to embed with, beside those that the database knows; may be repeated",
            autocompletion=completion.models,
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            "--token",
            help=f"name of the environment variable that holds the token every request must send (default: {TOKEN}, where that is set; "
            "without a token only this machine may ask)",
            metavar="NAME",
            show_default=False,
        ),
    ] = DEFAULT.token,
    p: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            help="database=NAME, budget_usd=DOLLARS a day, or roles.chunks=TABLE where several sets of tables serve models",
            metavar="KEY=VALUE",
        ),
    ] = None,
    body_mb: Annotated[
        int,
        typer.Option(
            "--body-mb", help="the largest request body that is accepted, in MiB", min=1, max=1024, metavar="MIB"
        ),
    ] = DEFAULT.body_mb,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            help="seconds within which a request must arrive, and again within which it is answered",
            min=0.1,
            max=3600,
            metavar="SECONDS",
        ),
    ] = DEFAULT.timeout,
    queue: Annotated[
        int,
        typer.Option(
            "--queue", help="requests that may wait for a model; the next is refused", min=1, max=10_000, metavar="N"
        ),
    ] = DEFAULT.queue,
) -> None:
    """``vecferry serve``. Raises UsageError."""
    given = parse(Serve, pairs(p))
    options = Options(
        host,
        port,
        tuple(map(with_provider, model or ())),
        given.database,
        given.roles.resolved(),
        token,
        body_mb,
        timeout,
        given.budget_usd,
        queue,
    )
    with _ending_in_order():
        with terminal.passing_by("starting…"):
            from flows.service.serving import serve
        serve(options, terminal.note)
    if terminal.err.is_terminal:  # behind the ^C
        terminal.err.print()
    terminal.note("stopped")


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the body as it ends by itself, with all that it opened closed; elsewhere Ctrl-C ends the
    process, whatever it does (flows/command/interrupt.py)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listener = signal.set_wakeup_fd(-1)
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in kept.items():
        if handler != signal.SIG_IGN:  # nohup is obeyed
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(listener, warn_on_full_buffer=False)
