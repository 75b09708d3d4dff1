"""The other queues are not installed where tests run: this is what can be said of their programs without them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.peers import programs
from benchmarks.peers.contenders import OUTBOX_JOBS, PEERS, QUICK, Peer

_DIRECTORY = Path(programs.__file__).parent
_REQUIRED = Path(programs.__file__).parents[1] / "requirements.txt"

each_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.package)


def _modules(peer: Peer) -> set[str]:
    """Those of ours that its commands name, whatever attribute follows."""
    words = [peer.program, *peer.worker]
    return {
        ".".join(word.partition(":")[0].split(".")[:4]) for word in words if word.startswith(programs.__name__ + ".")
    }


@each_peer
def test_a_peers_commands_name_a_program_that_there_is(peer: Peer) -> None:
    assert _modules(peer) == {peer.program}
    assert find_spec(peer.program) is not None


@pytest.mark.parametrize("path", sorted(_DIRECTORY.glob("*.py")), ids=lambda path: path.stem)
def test_a_peers_program_compiles(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


@each_peer
def test_a_peer_is_installed_and_has_outbox_beside_it(peer: Peer) -> None:
    requirements = _REQUIRED.read_text(encoding="utf-8").splitlines()
    assert any(line.split(">=")[0].split("[")[0] == peer.package for line in requirements)
    assert peer.jobs >= QUICK
    assert peer.family in OUTBOX_JOBS


def test_every_contender_has_a_name_of_its_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
