"""The ``vecferry`` command in this process, against the test's own Prefect server."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from flows.command import main


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    exit: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Its standard output, which must be one JSON object."""
        return json.loads(self.out)  # type: ignore[no-any-return]

    @property
    def complaint(self) -> str:
        """The line that says what is wrong."""
        lines = [x.removeprefix("vecferry: ") for x in self.err.splitlines() if x.startswith("vecferry: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Runs it to its end."""
    capsys.readouterr()
    try:
        status = int(main.app(list(arguments), standalone_mode=False) or 0)
    except BaseException as error:  # noqa: BLE001  as main() does
        status = main._end(error)
    return Ended(status, *capsys.readouterr())
