"""What the application is told from outside: the environment and `.env`."""

from functools import cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every variable is `APP_` and the field's name, but `DATABASE_URL`, which outbox and Alembic share."""

    model_config = SettingsConfigDict(env_prefix="APP_", env_file=".env", extra="ignore")

    database_url: str = Field("sqlite+aiosqlite:///outbox.db", validation_alias="DATABASE_URL")

    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25
    smtp_timeout: float = Field(10, gt=0, description="seconds for one SMTP conversation")
    mail_from: str = "Corner Shop <receipts@shop.example>"
    mail_domain: str = Field("shop.example", description="right-hand side of each Message-ID")

    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 1883
    mqtt_user: str | None = None
    mqtt_password: str | None = None
    mqtt_topic: str = "sensors/+/temperature"
    mqtt_client_id: str = Field(
        "outbox-consumer", description="the broker keeps messages for this name while we are away"
    )

    reports_dir: Path = Path("reports")
    report_seconds: float = Field(
        0, ge=0, description="seconds a report spends waiting, as for a slow source, on top of its work"
    )

    run_log: Path | None = Field(None, description="directory for a log of every run of every job; None writes nothing")


@cache
def settings() -> Settings:
    """The settings of this process, read once. Tests call `settings.cache_clear()`."""
    return Settings()
