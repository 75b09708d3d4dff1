"""Every error that outbox raises, as one tree.

::

    OutboxError
    ├── ConfigurationError            settings, flags or the surroundings are wrong: nothing was started
    │   ├── UnsupportedServer         the database server is too old to claim jobs safely
    │   └── TablesMissing             the tables are not there, or are those of another version
    ├── MigrationError                the tables were not upgraded or downgraded, or not all of them
    ├── DispatchError                 nothing was written
    │   ├── InvalidJob                a field does not validate, or would not reach a worker as it is
    │   ├── InvalidOption             an option is of a wrong type, or out of its range
    │   ├── PayloadTooLarge           the serialised job is over the limit
    │   ├── BatchClosed               jobs are added to a batch that has ended, or was cancelled
    │   ├── DuplicateJob              a unique job of the same key waits, or has the key
    │   └── SessionUnusable           the session cannot carry a job
    ├── JobError                      why a job ended: stored with a failed job, handed to ``failed()``
    │   ├── UnknownJob                no registered class has the row's name
    │   ├── InvalidPayload            the row's payload is not JSON, or no longer validates
    │   │   └── NewerPayload          it was dispatched by newer code than this worker's
    │   ├── DecryptionFailed          what is stored of an encrypted job cannot be decrypted
    │   ├── MissingResource           the worker's lifespan does not provide what ``handle`` takes
    │   ├── AttemptsExhausted         the last attempt ended with its lease, or the job released itself on it
    │   ├── JobExpired                no attempt had begun when the job expired
    │   ├── InvalidResult             the next job of a chain cannot be given what ``handle`` returned
    │   ├── JobTimeout                an attempt took longer than its timeout
    │   ├── LeaseLost                 a job's own transaction came too late to complete it
    │   └── JobFailed                 the job called ``context.fail("reason")``
    ├── JobNotFound                   no job, or no failed job, has this id
    ├── JobNotWaiting                 a job is to be changed that runs, or whose time a policy decides
    ├── RepeatedAction                a form of the dashboard was sent before: nothing was done again
    └── BackendUnavailable            the server cannot be reached, or answers with transient errors only
        └── RequestRefused            the server answers, and refuses this request for now
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


class OutboxError(Exception):
    """The root of every error that outbox raises."""


class ConfigurationError(OutboxError):
    """Settings, flags or the surroundings are wrong; the message says what to change."""


class UnsupportedServer(ConfigurationError):
    """The database server has no ``SKIP LOCKED``, without which workers would wait for each other."""


class TablesMissing(ConfigurationError):
    """The tables of outbox are not in the database: run ``alembic upgrade head``."""


class MigrationError(OutboxError):
    """An upgrade or a downgrade of the tables was refused, or could not be finished; the message says how to get on."""


class DispatchError(OutboxError):
    """A job was refused at dispatch; nothing was written."""


class InvalidJob(DispatchError):
    """A field of the job does not validate, or would not reach a worker as it is; the message names the field."""


class InvalidOption(DispatchError):
    """An option of the job or of the dispatch is of a wrong type, or out of its range."""


class PayloadTooLarge(DispatchError):
    """The serialised job is larger than ``OUTBOX_PAYLOAD_LIMIT`` bytes."""


class BatchClosed(DispatchError):
    """The batch has ended, was cancelled, or is not known: no job can be added to it."""


class DuplicateJob(DispatchError):
    """Another job has the key of this unique one: ``job_id`` is its id. Nothing was written."""

    def __init__(self, message: str, job_id: UUID | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class SessionUnusable(DispatchError):
    """The session given to ``dispatch`` cannot carry a job; the message says why."""


class JobError(OutboxError):
    """Why a job ended without success."""


class UnknownJob(JobError):
    """No registered job class has this name."""


class InvalidPayload(JobError):
    """The payload is not JSON, or does not validate against the job class."""


class DecryptionFailed(JobError):
    """What is stored of an encrypted job cannot be decrypted: its key is unknown, or it was changed or moved."""


class NewerPayload(InvalidPayload):
    """The payload has a higher ``version`` than the job class of this worker: newer code has dispatched it."""


class MissingResource(JobError):
    """The lifespan of this worker does not provide what ``handle`` takes."""


class AttemptsExhausted(JobError):
    """No attempts are left, or no snoozes."""


class JobExpired(JobError):
    """The job's ``expires_after`` had passed before an attempt began."""


class InvalidResult(JobError):
    """What ``handle`` returned is no JSON, or over 64 KB, so that the next job of the chain cannot be given it."""


class JobTimeout(JobError):
    """An attempt ran longer than its timeout."""


class LeaseLost(JobError):
    """A transaction cannot complete its job: the lease has ended, and another worker may have the job."""


class JobFailed(JobError):
    """The job failed itself."""


class JobNotFound(OutboxError):
    """No job has this id."""


class JobNotWaiting(OutboxError):
    """The job runs, or a policy decides its time; the message says which. It was left as it is."""


class RepeatedAction(OutboxError):
    """A form of the dashboard was sent before, and what it asks for was done. Nothing was done again."""


class BackendUnavailable(OutboxError):
    """The server behind a connection cannot be reached or keeps refusing; trying again later is right."""


class RequestRefused(BackendUnavailable):
    """The server answers, and refuses what it was asked with an error that may pass: it is in maintenance, a right or a
    table is missing that was there before, or no list knows the error. Other requests may still be carried out."""
