"""The verdict as a table."""

from rich.table import Table

from app.demo.ledger import Ledger
from app.demo.mailbox import Mailbox
from app.demo.verdict import Stored, Verdict
from app.demo.witness import Witness

REASONS = {
    "killed": "the kill cut it off",
    "SMTPDataError": "the mail server said to try later",
    "CancelledError": "the worker gave it up",
    "Interrupted": "the worker gave it up",
    "cut off": "its process died",
}


WAYS = {
    "database": "jobs are rows of the database",
    "redis": "rows first, relayed after the commit",
}


def summary(
    rows: Stored,
    ledger: Ledger,
    mailbox: Mailbox,
    witness: Witness,
    verdict: Verdict,
    *,
    connection: str,
    seconds: float,
) -> Table:
    """Everything that can be counted, and what must be zero in the end."""
    table = Table(title="What became of it", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    counts = ledger.counts
    copies = sum(mailbox.copies.values()) - len(mailbox.copies)
    table.add_row("connection", connection, WAYS.get(connection, ""))
    table.add_row("orders", f"{rows.orders:,}", f"{counts['orders rolled back']} more had a declined card")
    table.add_row("receipts in the mailbox", f"{len(mailbox.copies):,}", f"second copies: {copies}")
    table.add_row(
        "readings stored", f"{rows.readings:,}", f"Seattle, hour by hour, from {len(ledger.in_order)} sensors"
    )
    table.add_row("readings processed", f"{len(rows.processed):,}", f"in the daily sums: {rows.counted:,}")
    table.add_row("reports", f"{witness.ended_by_job['GenerateReport']:,}", "charts, each longer than a lease")
    table.add_row("rolled back on purpose", f"{counts['jobs rolled back']:,}", _rolled_back(ledger))
    table.add_row("worker processes", f"{len(witness.busy())}", "two at a time, one killed with SIGKILL")
    table.add_row("runs more than once", f"{verdict.repeated:,}", _reasons(verdict))
    if verdict.unexplained:
        table.add_row("[red]repeated without a reason", f"[red]{verdict.unexplained:,}", "")
    table.add_section()
    table.add_row("lost", _must_be_zero(verdict.lost), _examples(verdict.lost))
    table.add_row("phantom", _must_be_zero(verdict.phantom), _examples(verdict.phantom))
    sensors = f"of the readings of {len(ledger.in_order)} sensors"
    table.add_row("out of order", _must_be_zero(verdict.out_of_order), sensors)
    table.add_row("took", f"{seconds:.1f} s", "")
    return table


def _rolled_back(ledger: Ledger) -> str:
    counts = ledger.counts
    return (
        f"jobs, in {counts['orders rolled back']} orders, {counts['batches rolled back']} batches and "
        f"{counts['savepoints rolled back']} savepoints"
    )


def _reasons(verdict: Verdict) -> str:
    return ", ".join(f"{REASONS.get(why, why)}: {count}" for why, count in verdict.reasons.most_common())


def _must_be_zero(found: set[str]) -> str:
    return f"[bold {'red' if found else 'green'}]{len(found):,}"


def _examples(found: set[str]) -> str:
    return ", ".join(sorted(found)[:3])
