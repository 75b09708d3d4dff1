"""The files of `deploy/` agree with the project and with each other."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))


def test_one_service_builds_the_image_and_the_others_wait_for_it() -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ours = {name: service for name, service in services.items() if service.get("image") == "outbox-example"}
    assert [name for name, service in ours.items() if "build" in service] == ["migrate"]
    for name, service in ours.items():
        if name != "migrate":
            assert service["pull_policy"] == "never"
            assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_a_worker_gets_more_time_to_stop_than_its_grace() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for profile, grace in (("default", 30), ("mail", 30), ("reports", 300)):
        assert int(services[f"worker-{profile}"]["stop_grace_period"].removesuffix("s")) > grace
    assert int(unit("outbox-worker@.service")["Service"]["TimeoutStopSec"]) > 300


@pytest.mark.parametrize("name", ["outbox-worker@.service", "outbox-relay.service"])
def test_a_unit_is_not_restarted_for_what_no_restart_mends(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["Type"], service["TimeoutStartSec"]) == ("notify", "infinity")
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", "2")
    assert {"RestartSec", "RestartSteps", "RestartMaxDelaySec"} <= service.keys(), "delays grow"


def test_every_unit_is_confined_in_the_same_way() -> None:
    def confinement(name: str) -> dict[str, str]:
        settings = unit(name)["Service"]
        return {
            key: value
            for key, value in settings.items()
            if key.startswith(("Protect", "Restrict", "Private", "No")) and not key.startswith(("Restart", "Notify"))
        }

    first, *others = map(confinement, UNITS)
    assert len(first) > 10
    assert all(other == first for other in others)


def test_the_timer_prunes_daily() -> None:
    assert unit("outbox-prune.timer")["Timer"]["OnCalendar"] == "daily"
    assert unit("outbox-prune.service")["Service"]["ExecStart"].endswith("-m outbox prune --hours 168")


def test_the_lock_fits_pyproject() -> None:
    """Whether the locked versions are in the ranges that pyproject.toml allows: else run `make lock`."""
    lock = (DEPLOY / "requirements.lock").read_text()
    pins = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", lock, re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["mysql"] + extras["redis"] + extras["uvloop"]
    for requirement in map(Requirement, wanted + project["dependency-groups"]["app"]):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: run `make lock`"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / name)
    return parser
