"""Failed jobs in Sentry: `OUTBOX_JOBS=error_reports,receipts` imports this module first."""

import sentry_sdk

from outbox.contrib import sentry

sentry_sdk.init("https://key@sentry.example/1", traces_sample_rate=0.1)
sentry.instrument(monitor_schedules=True)
