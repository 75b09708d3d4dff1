"""Encrypted jobs: the tables hold nothing that a reader without the key can read."""

import asyncio

from shop import Session, engine

from outbox import Job, disconnect, dispatch


class ChargeCard(Job):
    encrypt = True

    card: str
    amount: int

    async def handle(self) -> None:
        if self.amount > 1_000:
            raise ValueError(f"the card {self.card} was refused")
        print(f"charged {self.amount} to the card that ends with {self.card[-4:]}")


class Greet(Job):
    name_of_guest: str

    async def handle(self) -> None:
        print(f"hello {self.name_of_guest}")


async def main() -> None:
    async with Session() as session, session.begin():
        await dispatch(ChargeCard(card="4111111111111111", amount=20), session=session)
        await dispatch(ChargeCard(card="4111111111111111", amount=2_000), session=session, max_tries=1)
        await dispatch(Greet(name_of_guest="Ada"), session=session, encrypt=True)
    await disconnect()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
