"""The ceiling: loops that drain the same table without outbox, with the same durability.

They claim, parse, run a task per job and delete, and nothing else: no fence, no renewal of leases, no retries, no
failed jobs, no pauses. What outbox adds to that is what its ratio to them shows.
"""
