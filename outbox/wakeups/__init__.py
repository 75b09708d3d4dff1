"""How an idle worker learns that there may be work. Losing a wake-up only ever costs latency."""
