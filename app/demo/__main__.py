"""`python -m app.demo`: the whole life of an outbox in a minute, with a murder in the middle."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from app.demo.scenario import Options, Scenario
from app.demo.workers import DemoError


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.demo", description=__doc__)
    parser.add_argument("--orders", type=int, default=500, help="orders to place (default 500)")
    parser.add_argument("--readings", type=int, default=8759, help="readings to take (default: all 8,759)")
    parser.add_argument("--timeout", type=float, default=180, help="seconds to wait for the last job (default 180)")
    parser.add_argument("--dir", type=Path, help="keep the database, the logs and the charts in a new directory there")
    parser.add_argument("--web", action="store_true", help="serve the dashboard while it runs, and say where")
    parser.add_argument(
        "--reset",
        action="store_true",
        help="first drop this project's tables from DATABASE_URL (alembic downgrade base)",
    )
    return parser.parse_args()


async def play(scenario: Scenario) -> bool:
    """The scenario, which TERM ends as INT does: its workers end with it."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    return await scenario.run()


def main() -> int:
    """0 if the guarantees held; 1 if they did not, or if that could not be shown."""
    arguments = parse_arguments()
    console = Console()
    if arguments.dir:
        arguments.dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="outbox-demo-", dir=arguments.dir)).absolute()
    options = Options(
        directory=directory,
        orders=arguments.orders,
        readings=arguments.readings,
        timeout=arguments.timeout,
        reset=arguments.reset,
        web=arguments.web,
    )
    holds = False
    try:
        holds = asyncio.run(play(Scenario(options, console)))
    except DemoError as error:
        console.print("[bold red]the demonstration failed:", str(error), soft_wrap=True, highlight=False)
    except KeyboardInterrupt:
        console.print("[bold red]interrupted")
    worth_keeping = arguments.dir or not holds
    if worth_keeping and any(directory.glob("*.log")):
        console.print(f"database, logs and charts are kept in {directory}", soft_wrap=True)
        if (database := directory / "demo.db").exists():
            console.print(f"look at it: DATABASE_URL=sqlite+aiosqlite:///{database} outbox web", soft_wrap=True)
    else:
        shutil.rmtree(directory)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
