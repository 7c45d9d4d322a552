"""The Prefect server that PREFECT_API_URL names: whether it is there, before anything waits for it."""

from functools import cache
from urllib.parse import urlsplit, urlunsplit

import httpx

from tasks.base.errors import UsageError

PATIENCE = 4.0
"""Seconds that it has to answer."""
AT_ONCE = 1.0
"""Seconds in which one that is well answers."""


@cache
def require() -> None:
    """Returns when the server answers, or where none is named. Raises UsageError, naming the variable, when it does not."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url or _is_well(url):
        return
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": PATIENCE}, sync_client=True) as client,
    ):
        problem = client.api_healthcheck()
    if problem is None:
        return
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    reason = "it took too long" if isinstance(problem, httpx.TimeoutException) else lines[0]
    raise UsageError(
        f"no Prefect server answers at {without_credentials(url)}, where PREFECT_API_URL points "
        f"({reason}): start one, e.g. with `make ui`, or unset PREFECT_API_URL to run without one"
    )


def _is_well(url: str) -> bool:
    """Whether it says so when asked without Prefect's client, whose settings take a tenth of a second to change. That is asked
    where certificates are needed, and where this says no."""
    if not url.startswith("http://"):
        return False
    try:
        return httpx.get(f"{url}/health", timeout=AT_ONCE, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def without_credentials(url: str) -> str:
    """The address without a user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
