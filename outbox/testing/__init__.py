"""For tests of applications: what was dispatched, one job by itself, all that is due, and a clock to put ahead.

`fake` stands in for the stores. The others run the real thing: the handlers as a worker calls them, the claims and
settlements of the driver, and the clock of the database. `outbox.testing.sync` has `perform` and `drain` for tests that
are not async, and pytest finds the fixtures ``outbox_fake``, ``outbox_drain`` and ``outbox_clock`` by itself.
"""

from outbox.testing import sync
from outbox.testing.dispatched import Dispatched
from outbox.testing.draining import drain
from outbox.testing.fake import Fake, fake
from outbox.testing.performing import Performed, PutBack, perform
from outbox.testing.sync import Drain
from outbox.testing.travel import Clock, travel

__all__ = ["Clock", "Dispatched", "Drain", "Fake", "Performed", "PutBack", "drain", "fake", "perform", "sync", "travel"]
