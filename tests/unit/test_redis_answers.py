"""What a Redis says, whatever pieces it comes in."""

from __future__ import annotations

import pytest
from redis.exceptions import InvalidResponse, NoScriptError, ReadOnlyError, ResponseError

from outbox.drivers.redis.connection.raw_connection import Answers, pack
from outbox.drivers.redis.script import signs

SAID = b"*2\r\n$5\r\na\r\nb\r\r\n*3\r\n:-7\r\n$-1\r\n*0\r\n$0\r\n\r\n*-1\r\n"
MEANT = [[b"a\r\nb\r", [-7, None, []]], b"", None]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(SAID)])
def test_it_is_understood_in_pieces_of_any_size(size: int) -> None:
    answers = Answers()
    pieces = [SAID[start : start + size] for start in range(0, len(SAID), size)]
    assert [answer for piece in pieces for answer in answers.feed(piece)] == MEANT


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b":seven\r\n"])
def test_what_no_redis_says_is_refused(said: bytes) -> None:
    with pytest.raises(InvalidResponse, match="is not what a Redis says"):
        Answers().feed(said)


@pytest.mark.parametrize("said", [b"OK", b"", b"1", b"111"])
def test_a_script_answers_with_one_known_character_for_each_job(said: bytes) -> None:
    with pytest.raises(InvalidResponse):
        signs(said, 2)


def test_errors_are_values_of_the_kind_that_redis_py_would_raise() -> None:
    said = b"-NOSCRIPT No matching script.\r\n-READONLY You can't write\r\n-ERR unknown command 'EVALSHA'\r\n:1\r\n"
    missing, read_only, other, last = Answers().feed(said)
    assert [type(error) for error in (missing, read_only, other)] == [NoScriptError, ReadOnlyError, ResponseError]
    assert (str(other), last) == ("unknown command 'EVALSHA'", 1)


def test_a_command_is_sent_as_redis_wants_it() -> None:
    assert pack(("SET", b"k\r\n", 12, "é")) == b"*4\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$2\r\n12\r\n$2\r\n\xc3\xa9\r\n"
