"""What the service is started with."""

import ipaddress
import os
from dataclasses import dataclass

from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.stores.postgres.model_tables import Roles

TOKEN = "VECFERRY_TOKEN"
"""The variable that is looked at where no other name is given."""


@dataclass(frozen=True)
class Options:
    """The defaults of the command stand here."""

    host: str = "127.0.0.1"
    port: int = 8010
    models: tuple[str, ...] = ()
    """Models to serve beside those that the database knows, loaded before the first request."""
    database: str = settings.DEFAULT_DATABASE
    """The name of the database."""
    roles: Roles | None = None
    """Which tables are meant where there are several sets of them."""
    token: str = ""
    """The name of the bearer token; empty: TOKEN, where that is set."""
    body_mb: int = 32
    """The largest body that is taken, in MiB."""
    timeout: float = 30.0
    """Seconds that a request may take to arrive, and its answer to be made."""
    budget_usd: float | None = None
    """Dollars that all services of this database may spend a day on vectors."""
    queue: int = 64
    """Requests that may wait for a model, and for the database; the next one is refused with 429."""

    @property
    def body_bytes(self) -> int:
        return self.body_mb << 20

    @property
    def address(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def bearer_token(options: Options) -> str | None:
    """The token that every request must bear; None where none is named and only this machine can ask.

    Raises UsageError where the name stands for nothing, and where others could ask without a token."""
    token = settings.secret(options.token, "token") if options.token else os.environ.get(TOKEN)
    if options.token and not token:
        raise UsageError(f"token: neither an environment variable nor a Prefect Secret block is called {options.token}")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(f"token: what {options.token or TOKEN} stands for has letters that no HTTP header can carry")
    if not token and not is_loopback(options.host):
        raise UsageError(
            f"without a token only this machine may ask, and --host {options.host} lets others: set {TOKEN}, or name "
            "another variable with --token"
        )
    return token or None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
