"""What a plan freezes of a content of images."""

from dataclasses import dataclass

from tasks.embedders.interface import Kind
from tasks.embedders.pictures import MAX_PIXELS


@dataclass(frozen=True)
class Options:
    """Where pictures are, and what of them is taken. ``root``, ``root`` with ``bucket``, or ``database`` is given."""

    root: str = ""
    """A directory; an fsspec URL; an https URL that all references begin with, or ``https://`` for any; the URL of a project of
    Supabase."""
    bucket: str = ""
    """Of Supabase Storage; a public one, where there is no ``service_key``."""
    service_key: str = ""
    """The name of an environment variable or Prefect Secret block."""
    database: str = ""
    """The name of one with the URL of the database that holds the pictures."""
    table: str = ""
    """SQL: its name, quoted and with its schema."""
    column: str = ""
    """SQL: an expression over its columns, of type bytea."""
    key: str = ""
    """SQL: an expression over its columns, which references are compared with."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts on the local or a private network that are meant: names, addresses, networks, each with a port or without."""
    max_bytes: int = 1 << 25
    """Of a file."""
    max_pixels: int = MAX_PIXELS
    """Of a picture, before it is cropped."""
    concurrency: int = 16
    """Files read at once."""
    asked: Kind = "image"
    """What people search the pictures by: others, or texts."""
