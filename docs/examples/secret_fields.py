"""A field whose value pydantic hides, stored all the same."""

from pydantic import SecretStr, field_serializer

from outbox import Job


class Unlock(Job):
    account_id: int
    code: SecretStr

    @field_serializer("code", when_used="json")
    def reveal(self, code: SecretStr) -> str:
        return code.get_secret_value()

    async def handle(self) -> None:
        print(f"unlocking {self.account_id} with {len(self.code.get_secret_value())} characters")
