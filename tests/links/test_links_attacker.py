"""An attacker between two nodes, on real sockets: nothing that it does reaches a handler, and the nodes find each other again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from hypercache.errors import RequestError
from hypercache.wire.messages import AuthResult, Heartbeat, HeartbeatResponse, ReplicateData
from tests.links.messages import Probe, ProbeReply, reply
from tests.links.nodes import NOWHERE, LinkedNode, Nodes, credential, hmac, joining, linked
from tests.links.pair import BODY_AT, flipped, reframed
from tests.links.relay import TO_DIALLER, TO_LISTENER, Connection, Relay, untouched
from tests.links.test_links_tampering import FORGED
from tests.net.sockets import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hypercache.net.link import PeerLink

    Attack = Callable[["Attacker", Connection, int, bytes], list[bytes]]

QUICK = (
    "cluster.heartbeat=0.05",
    "cluster.silence=2",
    "cluster.frame_timeout=0.3",
    "cluster.hello_timeout=0.3",
    "cluster.auth_timeout=0.3",
    "compression.codec=lz4",
    "compression.threshold=100",
)
IN_FLIGHT = 10


def content(tag: int, number: int) -> bytes:
    return b"%d/%d " % (tag, number) * (number % 40)


class Talk:
    """Has nodes ask each other over whatever link they have, all the time.

    Each link has a tag of its own, and numbers its questions.
    """

    def __init__(self, *nodes: LinkedNode) -> None:
        self.nodes = nodes
        self.wrong: list[Any] = []
        self.answered = 0
        self._tags: dict[PeerLink, int] = {}
        self._counts: dict[PeerLink, int] = {}
        self._waiting: dict[PeerLink, int] = {}
        self._call = LoopingCall(self._ask)

    def start(self) -> None:
        self._call.start(0.003)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def _ask(self) -> None:
        for node in self.nodes:
            for link in node.membership.links():
                tag = self._tags.setdefault(link, len(self._tags))
                while link.usable and self._waiting.get(link, 0) < IN_FLIGHT:
                    number = self._counts.get(link, 0)
                    self._counts[link] = number + 1
                    self._waiting[link] = self._waiting.get(link, 0) + 1
                    message = Probe(tag, number, content(tag, number))
                    link.request(message).addBoth(self._take, link, message)

    def _take(self, result: Any, link: PeerLink, message: Probe) -> None:
        self._waiting[link] -= 1
        if getattr(result, "value", None) is not None and result.check(RequestError):
            return
        if result == reply(message):
            self.answered += 1
        else:
            self.wrong.append(result)

    def check(self) -> None:
        """Hold what was handled against what was asked."""
        assert not self.wrong
        tagged: dict[int, PeerLink] = {}
        for node in self.nodes:
            came: dict[PeerLink, list[Probe]] = {}
            beats: dict[PeerLink, int] = {}
            others = {each.node_id for each in self.nodes} - {node.node_id}
            for each in node.handled:
                message = each.message
                assert not isinstance(message, ReplicateData), "nobody has written anything"
                if isinstance(message, Probe):
                    came.setdefault(each.link, []).append(message)
                elif isinstance(message, Heartbeat):
                    assert message.node_id in others
                    assert message.timestamp > beats.get(each.link, 0)
                    beats[each.link] = message.timestamp
            for link, messages in came.items():
                tag = messages[0].link
                assert messages == [Probe(tag, number, content(tag, number)) for number in range(len(messages))]
                assert tagged.setdefault(tag, link) is link, "what was sent over one link came over another"


class Attacker:
    """What the relay does, and when.

    Attributes:
        armed: what is done to the next frame that suits it.
        done: how often it struck.
        recorded: frames of connections that are over, by direction.
    """

    def __init__(self, relay: Relay, seed: int = 1) -> None:
        self.relay = relay
        self.rng = random.Random(seed)
        self.armed: Attack | None = None
        self.done = 0
        relay.change = self._change

    @property
    def recorded(self) -> tuple[list[bytes], list[bytes]]:
        frames: tuple[list[bytes], list[bytes]] = ([], [])
        for each in self.relay.connections[-6:]:
            if not each.is_open:
                for direction in (TO_LISTENER, TO_DIALLER):
                    frames[direction].extend(each.frames[direction][-50:])
        return frames

    def _change(self, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
        if self.armed is None:
            return [frame]
        attack = self.armed
        self.armed = None
        sent = attack(self, connection, direction, frame)
        if sent == [frame]:
            # There was nothing to do yet.
            self.armed = attack
        else:
            self.done += 1
        return sent


def flip(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    return [flipped(frame, attacker.rng.randrange(8 * len(frame)))]


def flip_in_header(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    return [flipped(frame, attacker.rng.randrange(8 * BODY_AT))]


def drop(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    return []


def double(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    return [frame, frame]


def hold_back(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    """Swap a frame with the one that follows."""

    def behind(_: Attacker, other: Connection, its_direction: int, following: bytes) -> list[bytes]:
        return [following, frame] if (other, its_direction) == (connection, direction) else [following]

    attacker.armed = behind
    return []


def replay(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    before = connection.frames[direction]
    return [frame, attacker.rng.choice(before)] if before else [frame]


def replay_other(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    before = attacker.recorded[direction]
    return [attacker.rng.choice(before), frame] if before else [frame]


def reflect(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    connection.put(1 - direction, frame)
    return [frame, b""]


def forge(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    return [attacker.rng.choice(list(FORGED.values())), frame]


def truncate(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    return [frame[: attacker.rng.randrange(1, len(frame))]]


def lengthen(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    # Behind the fixed parts of Hello and the proofs bytes are ignored, but they are covered; AuthResult alone is not, whole.
    return [reframed(frame, frame[BODY_AT:] + b"\0")] if frame[5] != AuthResult.TYPE else [frame]


def cut_within(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    connection.put(direction, frame[: attacker.rng.randrange(1, len(frame))])
    connection.cut()
    return []


def answer_falsely(attacker: Attacker, connection: Connection, direction: int, frame: bytes) -> list[bytes]:
    """Send a request back as its own answer."""
    if frame[4] != 2:
        return [frame]
    body = bytearray(frame[BODY_AT:])
    body[0] |= 2
    for message_type in (ProbeReply.TYPE, HeartbeatResponse.TYPE):
        connection.put(1 - direction, reframed(frame, bytes(body), message_type=message_type))
    return [frame, b""]


ATTACKS: dict[str, Attack] = {
    "flip": flip,
    "flip in the header": flip_in_header,
    "drop": drop,
    "double": double,
    "swap": hold_back,
    "replay": replay,
    "replay of another connection": replay_other,
    "reflect": reflect,
    "forge": forge,
    "truncate": truncate,
    "lengthen": lengthen,
    "cut within a frame": cut_within,
    "a false answer": answer_falsely,
}


@pytest_twisted.async_yield_fixture
async def relay() -> AsyncIterator[Relay]:
    made = await Relay().start()
    yield made
    await made.stop()


async def attacked_pair(nodes: Nodes, relay: Relay) -> tuple[LinkedNode, LinkedNode, Talk]:
    """Return two nodes whose only way to each other is the relay, and who talk."""
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys, *QUICK, f"node.advertise=127.0.0.1:{relay.port}")
    relay.target = one.port
    two = await nodes.start(2, *keys, *QUICK, joining(relay.port), f"node.advertise={NOWHERE}")
    await linked(one, two)
    talk = Talk(one, two)
    talk.start()
    return one, two, talk


async def recovered(one: LinkedNode, two: LinkedNode, talk: Talk) -> None:
    """Wait until the nodes are linked and answer each other."""
    await linked(one, two)
    answered = talk.answered
    await until(lambda: talk.answered > answered + 2 * IN_FLIGHT)


@pytest_twisted.ensureDeferred
async def test_each_attack_breaks_the_link_alone_and_the_nodes_link_again(nodes: Nodes, relay: Relay, log: list[str]) -> None:
    one, two, talk = await attacked_pair(nodes, relay)
    attacker = Attacker(relay)
    for name, attack in ATTACKS.items():
        await recovered(one, two, talk)
        done = attacker.done
        (before,) = relay.open_connections
        attacker.armed = attack
        await until(lambda done=done: attacker.done > done)  # type: ignore[misc]
        await until(lambda before=before: not before.is_open)  # type: ignore[misc]
        attacker.armed = None
        assert attacker.done > done, name
    await recovered(one, two, talk)
    talk.stop()
    talk.check()
    assert one.metrics.links_broken + two.metrics.links_broken > len(ATTACKS) // 2
    assert not [line for line in log if "Traceback" in line]


async def attack_at_random(nodes: Nodes, relay: Relay, seed: int, count: int) -> None:
    """Attack frames at random, those of handshakes as well."""
    one, two, talk = await attacked_pair(nodes, relay)
    attacker = Attacker(relay, seed)
    rng = random.Random(seed)
    clock: Any = reactor
    deadline = clock.seconds() + 20 + 2 * count
    while attacker.done < count:
        assert clock.seconds() < deadline
        frames = rng.randrange(60)
        connection = relay.connections[-1]
        seen = sum(map(len, connection.frames)) + frames
        # A new connection is attacked while it shakes hands, every now and then.
        await until(
            lambda connection=connection, seen=seen: (
                sum(map(len, connection.frames)) >= seen  # type: ignore[misc]
                or relay.connections[-1] is not connection
            )
        )
        done = attacker.done
        attacker.armed = rng.choice(list(ATTACKS.values()))
        await until(lambda done=done: attacker.done > done)  # type: ignore[misc]
    attacker.armed = None
    relay.change = untouched
    await recovered(one, two, talk)
    talk.stop()
    talk.check()


@pytest.mark.parametrize("seed", [1])
@pytest_twisted.ensureDeferred
async def test_attacks_at_random_let_no_changed_message_through(nodes: Nodes, relay: Relay, seed: int) -> None:
    await attack_at_random(nodes, relay, seed, 30)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
@pytest_twisted.ensureDeferred
async def test_very_many_attacks_at_random_let_no_changed_message_through(nodes: Nodes, relay: Relay, seed: int) -> None:
    await attack_at_random(nodes, relay, seed, 300)
