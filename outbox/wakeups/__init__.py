"""How an idle worker learns of new jobs. A lost wake-up costs latency, nothing else.

A worker waits on one `base.Wakeups` per connection. The `local_hub` of its process wakes it when jobs are committed to
its queues. The hub is told by dispatches in the same process and by sources: Redis, a binary log, or the supervisor's
reader of one. A new source implements `base.WakeupSource`, usually as a `reconnecting_source.ReconnectingSource`, and
gets a case in `selector`.
"""
