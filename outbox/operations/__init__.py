"""What operators do, for applications: look at jobs, queues and workers, cancel, put back, remove.

Every function takes ``connection``, the name of a connection of the settings; left out, it is that of
``QUEUE_CONNECTION``. Each raises `ConfigurationError` where there is no such connection or its tables are
missing, and `BackendUnavailable` where its store does not answer. With ``by``, the name of a person, a change is
written to the audit log of a database. `outbox.sync` has the same for code that is not async.
"""

from outbox.operations.activity import depths as depths
from outbox.operations.activity import metrics as metrics
from outbox.operations.changes import cancel as cancel
from outbox.operations.changes import change as change
from outbox.operations.changes import reschedule as reschedule
from outbox.operations.failures import failed_groups as failed_groups
from outbox.operations.failures import failed_jobs as failed_jobs
from outbox.operations.failures import forget as forget
from outbox.operations.failures import forget_all as forget_all
from outbox.operations.failures import retry as retry
from outbox.operations.failures import retry_all as retry_all
from outbox.operations.live_jobs import find as find
from outbox.operations.live_jobs import jobs as jobs
from outbox.operations.queues import clear as clear
from outbox.operations.queues import counts as counts
from outbox.operations.queues import workers as workers
from outbox.operations.results import finished_jobs as finished_jobs
from outbox.operations.results import progress as progress
from outbox.operations.results import result as result
