"""Fingerprints of failures: what is one problem, and what is another."""

from __future__ import annotations

import re
import time

import pytest

from outbox.encryption import MARK
from outbox.fingerprint import fingerprint, is_fingerprint, last_frame, normalized
from outbox.settlement import ENCRYPTED, Failure

TRACE = """Traceback (most recent call last):
  File "/venv/lib/python3.12/site-packages/outbox/middleware/stack.py", line 40, in call
    return await handle()
  File "/srv/shop/shop/mail.py", line {line}, in handle
    await send(order)
  File "/venv/lib/python3.12/site-packages/aiosmtplib/api.py", line 9, in send
    raise SMTPError
"""


@pytest.mark.parametrize(
    ("message", "other"),
    [
        ("no order 17", "no order 4711"),
        ("no user 01a20bf1-7bb8-748b-ae11-e81956fc3160", "no user 01A20BF1-0000-748b-ae11-e81956fc3161"),
        ("no such key: 'mail'", "no such key: 'sms and more'"),
        ('no column "a"', 'no column "b c"'),
        ("object at 0x7f4af1e58a90", "object at 0x7F4AF35A7690"),
        ("commit b625bd5 is gone", "commit 597b8a6 is gone"),
        ("took 1.5 s\nof 2 s", "took 11.25 s of 3 s"),
    ],
)
def test_what_differs_from_one_failure_to_the_next_makes_no_difference(message: str, other: str) -> None:
    assert normalized(message) == normalized(other)
    assert fingerprint("ValueError", message, "") == fingerprint("ValueError", other, "")


@pytest.mark.parametrize(
    ("message", "other"), [("no order", "no user"), ("can't send", "can't receive"), ("bad face", "bad cafe")]
)
def test_other_words_are_another_problem(message: str, other: str) -> None:
    assert fingerprint("ValueError", message, "") != fingerprint("ValueError", other, "")


def test_another_type_or_another_frame_is_another_problem() -> None:
    here, there = TRACE.format(line=3), TRACE.format(line=3).replace("in handle", "in retry")
    found = {fingerprint("A", "x", here), fingerprint("B", "x", here), fingerprint("A", "x", there)}
    assert len(found) == 3


def test_another_line_of_the_same_function_is_the_same_problem() -> None:
    assert fingerprint("A", "x", TRACE.format(line=3)) == fingerprint("A", "x", TRACE.format(line=400))


def test_the_last_frame_of_the_application_counts() -> None:
    assert last_frame(TRACE.format(line=3)) == "shop/mail.py:handle"
    assert last_frame(r'  File "C:\srv\shop\mail.py", line 3, in send') == "shop/mail.py:send"
    assert last_frame('  File "/usr/lib/python3.12/json/decoder.py", line 3, in decode') == "json/decoder.py:decode"
    assert last_frame("no frames") == ""


def test_a_fingerprint_is_16_hexadecimal_digits_and_stays() -> None:
    failure = Failure("ValueError", "no order 7", TRACE.format(line=3))
    assert re.fullmatch("[0-9a-f]{16}", failure.fingerprint)
    assert failure.fingerprint == "f35325c8491677c2"


def test_the_fingerprint_of_an_encrypted_failure_tells_only_its_type() -> None:
    secrets = [Failure("ValueError", ENCRYPTED, f"{MARK}{text}") for text in ("one", "two")]
    assert {each.fingerprint for each in secrets} == {fingerprint("ValueError", ENCRYPTED, "")}
    assert Failure("KeyError", ENCRYPTED, f"{MARK}one").fingerprint != secrets[0].fingerprint


@pytest.mark.parametrize("text", ["'" * 100_000, "a" * 100_000, "0" * 100_000, "abcdef0 " * 20_000, "\udcff"])
def test_long_and_broken_texts_take_no_time(text: str) -> None:
    began = time.thread_time()  # what others do meanwhile does not count
    assert is_fingerprint(fingerprint(text, text, text))
    assert time.thread_time() - began < 1
