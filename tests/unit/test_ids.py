from __future__ import annotations

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from pydantic import BaseModel

from outbox import ids
from outbox.ids import JobId, met, new_job_id, new_job_ids, new_token, stored_job_id


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    job_id = new_job_id()
    assert (job_id.version, job_id.variant) == (7, "specified in RFC 4122")
    assert before <= job_id.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_ids_only_grow_even_when_the_wall_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_job_id() for _ in range(10_000)]
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_000_000_000_000_000)
    made += [new_job_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == 20_000


def test_many_ids_at_once_are_new_ids_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_job_id(), *new_job_ids(3_000), new_job_id()]
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_000_000_000_000_000)
    made += [*new_job_ids(3_000), *new_job_ids(1), new_job_id()]
    assert new_job_ids(0) == []
    assert made == sorted(made)
    assert len(set(made)) == 6_004
    assert {(job_id.version, job_id.variant) for job_id in made} == {(7, "specified in RFC 4122")}


def test_ids_go_on_in_the_next_millisecond_when_one_has_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = ids.IdSequence(1, (1 << 74) - 1)
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_000_000)
    [last] = sequence.take(1)
    assert last.int >> 80 == 2
    assert sequence.take(1)[0] > last


@pytest.mark.parametrize("number", [0, 1, 1 << 127, (1 << 128) - 1])
def test_the_id_of_a_row_is_the_id_that_was_stored(number: int) -> None:
    whole = JobId(int=number)
    read = stored_job_id(whole.bytes)
    assert (read, hash(read), str(read), read.bytes, read.is_safe) == (
        whole, hash(whole), str(whole), whole.bytes, whole.is_safe
    )  # fmt: skip
    assert type(read) is JobId
    assert pickle.loads(pickle.dumps(read)) == whole


def test_threads_never_get_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = pool.map(lambda _: [new_job_id() for _ in range(2_000)], range(8))
        made = [job_id for batch in batches for job_id in batch]
    assert len(set(made)) == len(made)


def test_a_forked_child_does_not_repeat_its_parents_ids() -> None:
    read, write = os.pipe()
    new_job_id()
    child = os.fork()
    if child == 0:
        os.write(write, b"".join(new_job_id().bytes for _ in range(50)))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 50 * 16)
    os.close(read)
    os.close(write)
    ours = {new_job_id().bytes for _ in range(50)}
    assert len(theirs) == 800
    assert not ours & {theirs[start : start + 16] for start in range(0, 800, 16)}


def test_tokens_are_sixteen_bytes_and_not_repeated() -> None:
    tokens = {new_token() for _ in range(1_000)}
    assert len(tokens) == 1_000
    assert {len(token) for token in tokens} == {16}


def test_an_id_is_a_uuid_wherever_one_is_wanted() -> None:
    class Holder(BaseModel):
        job_id: JobId

    job_id = new_job_id()
    plain = UUID(int=job_id.int)
    assert (job_id.created, job_id == plain, hash(job_id) == hash(plain)) == (True, True, True)
    for given in (job_id, plain, str(job_id)):
        held = Holder.model_validate({"job_id": given})
        assert type(held.job_id) is JobId
        assert Holder.model_validate_json(held.model_dump_json()) == held
    assert Holder.model_json_schema()["properties"]["job_id"]["format"] == "uuid"
    other = met(plain)
    assert (other.created, other == job_id, repr(other)) == (False, True, f"JobId('{job_id}')")
    copied = pickle.loads(pickle.dumps(other))
    assert (copied, copied.created) == (job_id, False)
