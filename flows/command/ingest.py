"""What ``vecferry ingest`` does: text files become documents, with their chunks and vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.command import completion, interrupt
from flows.command.arguments import pairs
from flows.command.show import terminal
from flows.forms.form import parse
from flows.forms.models import Ingest
from tasks.base.errors import UsageError, VecferryError
from tasks.base.words import listed

if TYPE_CHECKING:
    from flows.client import Client
    from flows.command.show.hits import Ingested


def command(
    files: Annotated[list[Path], typer.Argument(help="a text file; may be repeated", metavar="FILE")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="the registered model that makes the vectors (default: the active one)",
            autocompletion=completion.models,
            metavar="NAME",
            show_default=False,
        ),
    ] = "",
    title: Annotated[
        str,
        typer.Option("--title", help="of the document (default: the file's name)", metavar="TITLE", show_default=False),
    ] = "",
    p: Annotated[
        list[str] | None,
        typer.Option("-p", help="database=NAME, budget_usd=DOLLARS, roles.chunks=TABLE", metavar="KEY=VALUE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """``vecferry ingest``. Raises UsageError; what was written before that is named."""
    from flows.client import Allowance, Client
    from flows.command.show.hits import show_ingested

    if title and len(files) > 1:
        raise UsageError("--title is of one document: ingest files with titles of their own one by one")
    texts = [(file, _text_of(file)) for file in files]  # all of them, before anything is written
    asked, done = parse(Ingest, pairs(p)), list["Ingested"]()
    allowance = Allowance("ingest", asked.budget_usd)
    with (
        Client(asked.database, roles=asked.roles.resolved(), allowance=allowance) as client,
        terminal.passing_by("ingesting…"),
        interrupt.keeping(),
    ):
        name = client.model_named(model or None)
        for file, text in texts:
            try:
                done.append(_ingested(client, file, title or file.name, text, name))
            except VecferryError as error:
                written = f"; written before it: {listed([str(one.file) for one in done])}" if done else ""
                raise type(error)(f"{file}: {error}{written}") from error
    show_ingested(done, name, as_json)


def _ingested(client: "Client", file: Path, title: str, text: str, model: str) -> "Ingested":
    """The document of a file, which is written unless it is there, with its vectors: so the same command goes on where it was ended."""
    from flows.command.show.hits import Ingested

    key = client.find_document(title, text)
    new = key is None
    if key is None:
        key = client.ingest_document(title, text, model)
    there = client.document_embeddings(key)
    if any(of.model == model and of.chunks < there.chunks for of in there.models):
        client.update_document_embeddings(key, model)
    return Ingested(file, key, there.chunks, new)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(file)!r}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{str(file)!r} is not text in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}") from None
