"""Dispatching: a job is validated, serialised, and handed to the session or to the connection's driver.

`calls` is what applications call. `preparing` makes what is written, and `in_session` and `without_session` write it.
Chains, batches, schedules and the rest dispatch by the same parts.
"""

from outbox.dispatch.calls import dispatch as dispatch
from outbox.dispatch.calls import dispatch_many as dispatch_many
from outbox.dispatch.calls import with_options as with_options
from outbox.dispatch.checks import several as several
from outbox.dispatch.conditions import wanted_jobs as wanted_jobs
from outbox.dispatch.in_session import AnySession as AnySession
from outbox.dispatch.in_session import stage_all as stage_all
from outbox.dispatch.in_session import stage_in as stage_in
from outbox.dispatch.in_session import sync_session as sync_session
from outbox.dispatch.preparing import Serialized as Serialized
from outbox.dispatch.preparing import nothing_dispatched as nothing_dispatched
from outbox.dispatch.preparing import nothing_serialized as nothing_serialized
from outbox.dispatch.preparing import serialize_all as serialize_all
from outbox.dispatch.without_session import store_all as store_all
from outbox.dispatch.without_session import store_together as store_together
