"""``rekey``: what is stored of encrypted jobs, encrypted with the first key."""

from __future__ import annotations

import asyncio

import click

from outbox.console.connections import Stores, on_connections
from outbox.console.formatting import counted
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.values import RewrittenTexts
from outbox.encrypted_jobs import Rekeying
from outbox.encryption import keyring

_MOST_PASSES = 20
_PAUSE = 0.2
"""Seconds until rows are looked at again that other transactions held."""


@click.command()
@on_connections
async def rekey(stores: Stores, output: Output) -> int:
    """Encrypt waiting and failed jobs with the first key of OUTBOX_ENCRYPTION_KEYS.

    It works in short transactions beside running workers. After an interruption, start it again: what is done is done.
    A job moves from place to place meanwhile, so it looks until it finds nothing more to do.
    """
    keys = keyring(stores.settings.encryption_keys)
    keys.check("what is stored")
    rekeying = Rekeying(keys)
    total = 0
    left: dict[str, int] = {}
    busy = 0
    for _ in range(_MOST_PASSES):
        rekeying.begin()
        found = await _pass(stores, rekeying)
        total += found.rewritten
        left, busy = rekeying.left, found.busy
        if not found.rewritten and not busy:
            break
        if busy:
            await asyncio.sleep(_PAUSE)
    document = stores.document(rekeyed=total, busy=busy, current=rekeying.current, left=left)
    output.result(document, f"Encrypted {counted(total, 'row')} with the first key.")
    for reason, count in left.items():
        output.note(f"outbox: {counted(count, 'text')} left as they are: {reason}")
    if busy:
        output.note(f"outbox: {counted(busy, 'row')} in use by other transactions: run `outbox rekey` again")
    return 1 if left or busy else 0


async def _pass(stores: Stores, rekeying: Rekeying) -> RewrittenTexts:
    async def rewrite(driver: Driver) -> RewrittenTexts:
        if driver.encrypted_texts is None:
            return RewrittenTexts()
        return await driver.encrypted_texts.rewrite(rekeying)

    found = (await stores.change(rewrite)).values()
    return sum(found, RewrittenTexts())
