"""A stand-in for whatever can say no late in a transaction: a card, a credit limit, a stock check."""

DECLINED = "card-declined"


class CardDeclined(Exception):
    """The card was declined."""


def authorise(card: str, cents: int) -> None:
    """Reserve `cents` on `card`; raises `CardDeclined` for the card token `card-declined`."""
    if card == DECLINED:
        raise CardDeclined(f"the card was declined for {cents // 100}.{cents % 100:02}")
