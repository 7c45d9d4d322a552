"""Two threads, or two processes, with the same text never both embed it, and neither waits for what the other alone wants."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import psycopg
import pytest

from tasks.embedders.interface import Space
from tasks.runs import ledger_versions, spending
from tasks.runs.keeper import Recovered
from tasks.runs.spending import Claims
from tasks.stores.postgres.connection import Connection, connect

CLAIMS = Claims()
SPACE = Space("tests", "one", 1)


def names(*letters: str) -> list[bytes]:
    return [letter.encode() for letter in letters]


def test_what_another_holds_comes_when_it_is_free_and_the_rest_at_once() -> None:
    one = CLAIMS.in_turn("space", names("a", "b"))
    assert next(one) == names("a", "b")
    two = CLAIMS.in_turn("space", names("b", "c"))
    assert next(two) == names("c"), "b is held"
    got: list[list[bytes]] = []
    waiting = threading.Thread(target=lambda: got.append(next(two)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive(), "b is still held"
    assert next(one, None) is None
    waiting.join(5)
    assert got == [names("b")]
    two.close()


def test_nothing_is_held_while_others_are_waited_for() -> None:
    """Two that want each other's texts would wait for ever."""
    other = CLAIMS.in_turn("space", names("b"))
    next(other)
    one = CLAIMS.in_turn("space", names("a", "b"))
    assert next(one) == names("a")
    waiting = threading.Thread(target=next, args=(one, None), daemon=True)
    waiting.start()
    with closing(CLAIMS.in_turn("space", names("a"))) as third:
        assert next(third) == names("a")
    other.close()
    waiting.join(5)
    assert not waiting.is_alive()
    one.close()


def test_a_failure_frees_what_was_held() -> None:
    with suppress(RuntimeError), closing(CLAIMS.in_turn("space", names("a"))) as parts:
        for _ in parts:
            raise RuntimeError("the provider is gone")
    with closing(CLAIMS.in_turn("space", names("a"))) as parts:
        assert next(parts) == names("a")


def test_spaces_do_not_stand_in_each_others_way() -> None:
    one = CLAIMS.in_turn("one", names("a"))
    next(one)
    assert next(CLAIMS.in_turn("two", names("a"))) == names("a")
    one.close()


# What several processes share


@pytest.fixture
def sessions(database: str) -> Iterator[tuple[Connection, Connection]]:
    """Two workers in one ledger."""
    with connect(database, "vecferry one") as one, connect(database, "vecferry two") as two:
        ledger_versions.ensure(one)
        yield one, two


def claimed(connection: Connection, *letters: str, space: Space = SPACE) -> tuple[ExitStack, str]:
    """Claims those, and what of them may be bought."""
    stack = ExitStack()
    free = stack.enter_context(spending.claimed(connection, space, names(*letters), Recovered()))
    return stack, "".join(sorted(key.decode() for key in free))


def test_what_another_session_has_claimed_is_not_bought(sessions: tuple[Connection, Connection]) -> None:
    """Not before it is given back; another space is another matter."""
    one, two = sessions
    first, free = claimed(one, "a", "b")
    assert free == "ab"
    second, free = claimed(two, "b", "c")
    assert free == "c"
    second.close()
    second, free = claimed(two, "b", space=Space("tests", "other", 1))
    assert free == "b"
    second.close()
    first.close()
    second, free = claimed(two, "a", "b")
    assert free == "ab"
    second.close()
    assert one.execute("SELECT count(*) FROM vecferry.claim").fetchone() == (0,)
    assert one.execute("SELECT count(*) FROM pg_locks WHERE classid = 7863293").fetchone() == (0,)


def test_what_was_kept_meanwhile_is_not_bought(sessions: tuple[Connection, Connection]) -> None:
    """Another may have kept a vector after it was looked for, and have given its claim back."""
    one, two = sessions
    two.execute("INSERT INTO vecferry.vector VALUES (%s, 'a', 'segment', 0)", (SPACE.fingerprint,))
    first, free = claimed(one, "a", "b")
    assert free == "b"
    first.close()


def test_a_claim_ends_with_its_session(sessions: tuple[Connection, Connection]) -> None:
    """A process that is killed gives nothing back; its claims are for the next one who asks."""
    one, two = sessions
    killed, _ = claimed(one, "a", "b")
    assert claimed(two, "b")[1] == ""
    two.execute("SELECT pg_terminate_backend(%s)", (one.info.backend_pid,))
    assert wait_until(lambda: claimed(two, "b", "c")[1] == "bc")
    with pytest.raises(psycopg.OperationalError):
        killed.close()


def test_many_that_want_the_same_at_once(sessions: tuple[Connection, Connection], database: str) -> None:
    """Whatever the order in which they ask, each content is claimed by one of them, and none waits for ever."""
    letters = [chr(ord("a") + i) for i in range(26)]
    taken: list[list[bytes]] = []
    start, asked = threading.Barrier(6), threading.Barrier(6)

    def work(seed: int) -> None:
        wanted = random.Random(seed).sample(letters, 20)
        with connect(database, f"vecferry {seed}") as connection:
            start.wait()
            with spending.claimed(connection, SPACE, names(*wanted), Recovered()) as free:
                taken.append(free)
                asked.wait()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    every = [key for keys in taken for key in keys]
    assert len(every) == len(set(every))
    assert len(every) > 20


def wait_until(seen: Callable[[], bool]) -> bool:
    """Whether it comes within some seconds."""
    return any(seen() or time.sleep(0.05) for _ in range(200))
