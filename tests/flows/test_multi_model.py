"""Documents onto one more model of several, through their whole life: all of them, some of them, and one alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import drive
from tests.helpers.local_models import needs_minilm
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.sampling import sampled
from tests.helpers.served_tables import Served, migration_of

pytestmark = pytest.mark.usefixtures("prefect")
SHARING = "openai/text-embedding-3-small?dimensions=384"


@pytest.mark.parametrize(
    ("source", "target"),
    sampled(
        [
            ("hashing/384", SHARING),
            ("hashing/384", "hashing/768"),
            ("hashing/768", "hashing/1536"),
            ("hashing/384", "hashing/3072"),
        ],
        ("hashing/384", SHARING),
    ),
)
def test_lifecycle(connection: Connection, provider: OpenAIServer, source: str, target: str) -> None:
    """Plan, run, roll back, run, cut over, roll back, cut over and contract, with inserts, updates and deletes; the model before has
    the vectors of what is said at any time, and where both share a column neither has the other's."""
    served = Served(connection, source)
    served.init(target)
    drive(migration_of(served, target))
    assert served.vectors(source) == served.expected(source)


@pytest.mark.whole
@needs_minilm
def test_from_the_real_minilm(connection: Connection, minilm: Path) -> None:
    """The old vectors are found to be all-MiniLM's before each switch, and are all-MiniLM's of what each chunk says after it."""
    name = f"sentence-transformers/{minilm}"
    served = Served(connection, name)
    served.init("hashing/1536")

    def gone_back() -> None:
        vectors, expected = served.vectors(name), served.expected(name)
        assert vectors.keys() == expected.keys()
        np.testing.assert_allclose([vectors[i] for i in expected], [*expected.values()], atol=2e-4)

    drive(replace(migration_of(served, "hashing/1536"), gone_back=gone_back))
