"""Two threads with the same text never both embed it, and neither waits for what the other alone wants."""

import threading
from contextlib import closing, suppress

from tasks.runs.claims import Claims

CLAIMS = Claims()


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
