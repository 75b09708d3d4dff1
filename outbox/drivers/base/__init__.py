"""The contract of a driver, in the verbs of jobs. ``tests/conformance/`` says what each verb owes.

Every verb is plural. Seconds are floats, and durations only: the store's own clock decides what is due. A verb that
cannot reach its store, after bounded retries of transient errors, raises `BackendUnavailable`.
"""

from outbox.drivers.base.claims import AgingClaims as AgingClaims
from outbox.drivers.base.claims import BlockingClaims as BlockingClaims
from outbox.drivers.base.claims import ShortJobClaims as ShortJobClaims
from outbox.drivers.base.driver import Driver as Driver
from outbox.drivers.base.encrypted_texts import EncryptedTexts as EncryptedTexts
from outbox.drivers.base.encrypted_texts import Rewrite as Rewrite
from outbox.drivers.base.failed_jobs import BeforeRemoval as BeforeRemoval
from outbox.drivers.base.failed_jobs import FailedJobStore as FailedJobStore
from outbox.drivers.base.failed_jobs import FailedPages as FailedPages
from outbox.drivers.base.failed_jobs import FailedStore as FailedStore
from outbox.drivers.base.failed_jobs import StillFailed as StillFailed
from outbox.drivers.base.finished_jobs import FinishedJobStore as FinishedJobStore
from outbox.drivers.base.inbox import MessageStore as MessageStore
from outbox.drivers.base.jobs import JobClaims as JobClaims
from outbox.drivers.base.jobs import JobInspection as JobInspection
from outbox.drivers.base.jobs import JobStore as JobStore
from outbox.drivers.base.jobs import JobWriter as JobWriter
from outbox.drivers.base.policies import LimitStore as LimitStore
from outbox.drivers.base.policies import PolicyStore as PolicyStore
from outbox.drivers.base.queues import QueueControl as QueueControl
from outbox.drivers.base.relay import Outcomes as Outcomes
from outbox.drivers.base.relay import RelaySource as RelaySource
from outbox.drivers.base.relay import RelayTarget as RelayTarget
from outbox.drivers.base.workers import WorkerRegistry as WorkerRegistry
