"""Events of binary logs, as MySQL 9.7 and MariaDB 10.11 wrote them, and what is read from them."""

from __future__ import annotations

import struct

import pytest

from outbox.wakeups.base import OPERATIONS, RESUMED
from outbox.wakeups.binlog.columns import Column, Unreadable, columns
from outbox.wakeups.binlog.rows import EVERY_QUEUE, JobRows

TABLE = b"\x5f\x02\0\0\0\0"
OTHER = b"\x60\x02\0\0\0\0"
TABLE_MAP, QUERY, WRITE_V1, WRITE_V2, UPDATE_V2, COMPRESSED = 0x13, 0x02, 0x17, 0x1E, 0x1F, 0xA6
DELETE_V1, DELETE_V2, COMPRESSED_DELETE = 0x19, 0x20, 0xA8
CHECKSUM = b"\xde\xad\xbe\xef"

# id BINARY(16), queue VARCHAR(64), payload JSON, n INT UNSIGNED, at DATETIME(6), text VARCHAR(300)
TYPES = b"\xfe\x0f\xf5\x03\x12\x0f"
METADATA = b"\xfe\x10" + struct.pack("<H", 64) + b"\x04" + b"\x06" + struct.pack("<H", 300)


def event(kind: int, body: bytes) -> bytes:
    """As it comes from the server: a byte for "no error", the header, the body and a checksum."""
    return b"\0" + struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body) + 4, 0, 0) + body + CHECKSUM


def table_map(schema: bytes = b"shop", table: bytes = b"queue_jobs", number: bytes = TABLE) -> bytes:
    names = bytes([len(schema)]) + schema + b"\0" + bytes([len(table)]) + table + b"\0"
    described = bytes([len(TYPES)]) + TYPES + bytes([len(METADATA)]) + METADATA + b"\0"
    return event(TABLE_MAP, number + b"\x01\0" + names + described)


def row(queue: str, *, payload: bytes | None = b"{}", text: bytes = b"x" * 280) -> bytes:
    nulls = bytes([0 if payload is not None else 0b100])
    value = b"" if payload is None else struct.pack("<I", len(payload)) + payload
    name = queue.encode()
    at, words = b"\x99" * 8, struct.pack("<H", len(text)) + text
    return nulls + b"\x10" + b"\xab" * 16 + bytes([len(name)]) + name + value + b"\x07\0\0\0" + at + words


def rows(*written: bytes, kind: int = WRITE_V2, number: bytes = TABLE, present: int = 0b111111) -> bytes:
    extra = b"\x05\0abc" if kind >= WRITE_V2 else b""
    return event(kind, number + b"\x01\0" + extra + bytes([len(TYPES), present]) + b"".join(written))


@pytest.fixture
def jobs() -> JobRows:
    return JobRows("shop", 1, checksums=True)


@pytest.mark.parametrize("kind", [WRITE_V1, WRITE_V2])
def test_the_queues_of_inserted_rows_are_read(jobs: JobRows, kind: int) -> None:
    assert jobs.queues(table_map()) is None
    inserted = rows(row("mail"), row("default", payload=b"[" + b"1," * 40_000 + b"1]"), row("mail"), kind=kind)
    assert jobs.queues(inserted) == {"mail", "default"}


def test_a_null_takes_no_room(jobs: JobRows) -> None:
    jobs.queues(table_map())
    assert jobs.queues(rows(row("a", payload=None), row("b"))) == {"a", "b"}


def test_columns_that_are_not_logged_take_no_room(jobs: JobRows) -> None:
    """binlog_row_image=MINIMAL"""
    jobs.queues(table_map())
    minimal = b"\0" + b"\x10" + b"\xab" * 16 + b"\x04mail" + b"\x07\0\0\0"
    assert jobs.queues(rows(minimal, minimal, present=0b001011)) == {"mail"}


@pytest.mark.parametrize("kind", [UPDATE_V2, DELETE_V2])
def test_claims_and_ends_of_jobs_wake_nobody(jobs: JobRows, kind: int) -> None:
    jobs.queues(table_map())
    assert jobs.queues(rows(row("mail"), kind=kind)) is None


@pytest.mark.parametrize(
    ("schema", "table"),
    [(b"other", b"queue_jobs"), (b"shop", b"orders"), (b"shop", b"queue_jobs2"), (b"sho", b"pqueue_jobs")],
)
def test_rows_of_other_tables_wake_nobody(jobs: JobRows, schema: bytes, table: bytes) -> None:
    jobs.queues(table_map(schema, table))
    assert jobs.queues(rows(row("mail"))) is None


@pytest.mark.parametrize("kind", [WRITE_V1, WRITE_V2, COMPRESSED])
def test_a_new_bulk_operation_is_told_and_its_progress_is_not(jobs: JobRows, kind: int) -> None:
    jobs.queues(table_map())
    jobs.queues(table_map(table=b"queue_operations", number=OTHER))
    assert jobs.queues(rows(row("mail"), kind=kind, number=OTHER)) == {OPERATIONS}
    assert jobs.queues(rows(row("mail"), kind=UPDATE_V2, number=OTHER)) is None
    assert jobs.queues(rows(row("mail"))) == {"mail"}
    jobs.queues(table_map(table=b"orders", number=OTHER))
    assert jobs.queues(rows(row("mail"), kind=kind, number=OTHER)) is None


@pytest.mark.parametrize("kind", [DELETE_V1, DELETE_V2, COMPRESSED_DELETE])
@pytest.mark.parametrize("table", [b"queue_pauses", b"queue_paused_jobs"])
def test_the_end_of_a_pause_wakes_everybody_and_its_begin_nobody(jobs: JobRows, table: bytes, kind: int) -> None:
    jobs.queues(table_map())
    jobs.queues(table_map(table=table, number=OTHER))
    assert jobs.queues(rows(row("mail"), kind=kind, number=OTHER)) == {RESUMED}
    assert jobs.queues(rows(row("mail"), number=OTHER)) is None
    assert jobs.queues(rows(row("mail"), kind=kind)) is None
    statement = b"\0" * 13 + b"shop\0DELETE FROM " + table + b" WHERE 1"
    assert jobs.queues(event(QUERY, statement)) == {RESUMED}
    assert jobs.queues(event(QUERY, statement.replace(b"shop", b"else"))) is None
    jobs.queues(table_map(table=b"orders", number=OTHER))
    assert jobs.queues(rows(row("mail"), kind=kind, number=OTHER)) is None


def test_rows_of_a_table_nobody_described_wake_nobody(jobs: JobRows) -> None:
    assert jobs.queues(rows(row("mail"))) is None


def test_a_number_that_another_table_has_taken_over_is_forgotten(jobs: JobRows) -> None:
    jobs.queues(table_map())
    jobs.queues(table_map(b"shop", b"orders"))
    assert jobs.queues(rows(row("mail"))) is None


def test_a_server_that_ignores_case_writes_names_as_it_likes() -> None:
    jobs = JobRows("Shop", 1, checksums=True)
    jobs.queues(table_map(b"shop"))
    assert jobs.queues(rows(row("mail"))) == {"mail"}


def test_without_checksums_the_last_row_is_whole() -> None:
    jobs = JobRows("shop", 1, checksums=False)
    jobs.queues(table_map()[:-4])
    assert jobs.queues(rows(row("a"), row("b"))[:-4]) == {"a", "b"}


def test_what_cannot_be_read_wakes_everybody(jobs: JobRows) -> None:
    jobs.queues(table_map())
    assert jobs.queues(event(COMPRESSED, TABLE + b"\x01\0\x80gibberish")) == EVERY_QUEUE
    assert jobs.queues(event(COMPRESSED, OTHER + b"\x01\0\x80gibberish")) is None
    assert jobs.queues(rows(row("mail")).replace(b"mail", b"\xff\xff\xff\xff")) == EVERY_QUEUE


def test_a_table_with_a_column_of_an_unknown_type_wakes_everybody(jobs: JobRows) -> None:
    jobs.queues(table_map().replace(TYPES, b"\xfe\x0f\xf5\x03\x12\x63"))
    assert jobs.queues(rows(row("mail"))) == EVERY_QUEUE


@pytest.mark.parametrize("statement", [b"INSERT INTO queue_jobs VALUES (1)", b"insert into queue_jobs select 1"])
def test_an_insert_that_was_logged_as_a_statement_wakes_everybody(jobs: JobRows, statement: bytes) -> None:
    assert jobs.queues(event(QUERY, b"\0" * 13 + b"shop\0" + statement)) == EVERY_QUEUE
    assert jobs.queues(event(QUERY, b"\0" * 13 + b"elsewhere\0" + statement)) is None
    assert jobs.queues(event(QUERY, b"\0" * 13 + b"shop\0UPDATE queue_jobs SET attempts = 1")) is None
    assert jobs.queues(event(QUERY, b"\0" * 13 + b"shop\0BEGIN")) is None


def test_how_long_values_are() -> None:
    assert columns(TYPES, METADATA) == (
        Column(length=1), Column(length=1), Column(length=4), Column(fixed=4), Column(fixed=8), Column(length=2),
    )  # fmt: skip
    # DATETIME with three digits of a second, a string of 300 bytes, a short integer, a long text
    assert columns(b"\x12\xfe\x02\xfc", b"\x03" + b"\xee\x2c" + b"\x04") == (
        Column(fixed=7), Column(length=2), Column(fixed=2), Column(length=4),
    )  # fmt: skip
    with pytest.raises(Unreadable):
        columns(b"\xfe", b"\xf7\x01")  # an ENUM
