"""Transcripts: a small language for what happens to a group, and what it says and becomes.

A file in ``golden/`` has comments (``#``), commands (``>``) and, under each command, what came of it. The test replays the commands
and compares. ``python -m tests.raft.transcripts [FILE...]`` writes files anew; what they then say must be read and judged by hand.

    > nodes 3 [learners 4] [option=value ...]   start nodes 1 to 3 as a group, and learners
    > node 1 log 1 1 2 [term 3] [vote 2] [commit 1]   give a node another past
    > campaign 1 | propose 1 x [y ...] | read 1 7 | transfer 1 2 | lost 1 2 | leave 1
    > members 1 1 2 4 [learners 3] [on demand]  let node 1 propose members
    > new 4                                     start a node that knows nothing
    > tick 1 [count] | tick all [count]         node by node in turn, nothing is delivered
    > pass [count]                              tick all and deliver all, count times
    > deliver [A>B ...]                         what is on its way, or what is on its way from A to B, once
    > reverse A>B                               deliver what is on its way from A to B, the newest first
    > drop [A>B ...] | double A>B
    > stabilize                                 deliver until nobody has more to say
    > cut A>B ... | isolate 1 ... | heal        what is sent from A to B is lost; all from and to 1; nothing any more
    > slow 1 | sync 1                           the disk of 1 takes its time; it is done
    > restart 1                                 lose all but what is on the disk
    > snapshot 1 3 [keep 2] [bytes 100]         let 1 make a snapshot of entry 3, and compact
    > state [1 ...]                             show nodes, and how far a leader knows its followers
    > quietly COMMAND                           without the messages

Timeouts are not random: node n waits for ``election_ticks + n - 1`` ticks.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercache.errors import HyperCacheError
from hypercache.raft import (
    Configuration,
    EntryType,
    HardState,
    Options,
    Outbound,
    Raft,
    Ready,
    SnapshotMeta,
    snapshot_header,
)
from hypercache.wire.messages import LogEntry
from tests.raft.wording import entry, followers, members, say, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parent / "golden"


class Timeouts(random.Random):
    """Draws the same timeout always."""

    def __init__(self, node_id: int) -> None:
        super().__init__(0)
        self.node_id = node_id

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return min(self.node_id - 1, start - 1)


class Disk:
    """What a node finds again."""

    def __init__(self, snapshot: SnapshotMeta) -> None:
        self.state = HardState()
        self.snapshot = snapshot
        self.entries: list[LogEntry] = []
        self.streams: dict[int, bytes] = {}
        self.arriving = b""

    def write(self, ready: Ready) -> None:
        for chunk in ready.chunks:
            self.arriving = self.arriving[: chunk.offset] + chunk.data
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, []
            self.streams = {ready.snapshot.index: self.arriving}
        if ready.hard_state is not None:
            self.state = ready.hard_state
        if ready.entries:
            self.entries[ready.first_index - self.snapshot.index - 1 :] = ready.entries

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        stream = self.streams.get(index)
        if stream is None or offset > len(stream):
            return None
        return stream[offset : offset + max_bytes], offset + max_bytes >= len(stream)


class Member:
    """One node: its core and its disk."""

    def __init__(self, node_id: int, options: Options, disk: Disk) -> None:
        self.node_id, self.options, self.disk = node_id, options, disk
        self.slow = False
        self.start()

    def start(self) -> None:
        disk = self.disk
        self.unsynced: list[Ready] = []
        self.raft = Raft(
            self.node_id,
            self.options,
            Timeouts(self.node_id),
            disk,
            hard_state=disk.state,
            snapshot=disk.snapshot,
            entries=disk.entries,
        )

    def work(self) -> Iterator[Ready]:
        while self.raft.has_ready:
            ready = self.raft.ready()
            if ready.must_sync and self.slow:
                self.unsynced.append(ready)
            else:
                self.disk.write(ready)
                self.raft.advance(ready)
            yield ready

    def sync(self) -> None:
        self.slow = False
        for ready in self.unsynced:
            self.disk.write(ready)
            self.raft.advance(ready)
        self.unsynced.clear()


class Transcript:
    """Plays commands; `play` returns what came of one."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.network: list[tuple[int, Outbound]] = []
        self.cuts: set[tuple[int, int]] = set()
        self.lines: list[str] = []
        self.shown: dict[int, str] = {}
        self.groups: dict[int, str] = {}
        self.quiet = False

    def play(self, command: str) -> list[str]:
        self.lines = []
        words = command.split()
        self.quiet = words[0] == "quietly"
        words = words[self.quiet :]
        try:
            getattr(self, f"do_{words[0]}")(*words[1:])
        except HyperCacheError as error:
            self.lines.append(f"{type(error).__name__}: {error}")
        self.collect()
        self.show_changes()
        return self.lines

    def show(self, sender: int, outbound: Outbound, before: str = "") -> None:
        if not self.quiet:
            self.lines.append(f"{before}{sender}>{outbound.to} {say(outbound.message)}")

    # What nodes do

    def collect(self) -> None:
        for node_id, member in self.members.items():
            for ready in member.work():
                for outbound in ready.messages:
                    self.show(node_id, outbound)
                    self.network.append((node_id, outbound))
                applied = [
                    (at, item) for at, item in enumerate(ready.committed, ready.committed_index) if item.type == EntryType.DATA
                ]
                if len(applied) > 3:
                    self.lines.append(f"{node_id} applies {len(applied)} entries, {applied[0][0]} to {applied[-1][0]}")
                else:
                    self.lines += [f"{node_id} applies {at} {entry(item)}" for at, item in applied]
                for read in ready.reads:
                    served = f"reads {read.context} at {read.index}" if read.index else f"may not read {read.context}"
                    self.lines.append(f"{node_id} {served}")
                self.lines += [f"{node_id} hears: {say(answer)}" for answer in ready.answers]
                if ready.snapshot is not None:
                    self.lines.append(f"{node_id} loads snapshot {ready.snapshot.index}/{ready.snapshot.term}")

    def show_changes(self) -> None:
        for node_id, member in self.members.items():
            now, group = standing(member.raft), members(member.raft.configuration)
            if self.shown.get(node_id) != now or self.groups.get(node_id) != group:
                self.lines.append(f"{node_id}: {now}" + (f" {group}" if self.groups.get(node_id) != group else ""))
                self.shown[node_id], self.groups[node_id] = now, group

    def step(self, sender: int, outbound: Outbound) -> None:
        if outbound.to not in self.members or (sender, outbound.to) in self.cuts:
            self.show(sender, outbound, "lost ")
            return
        self.members[outbound.to].raft.step(sender, outbound.message, outbound.exchange)
        self.collect()

    def raft(self, node: str) -> Raft:
        return self.members[int(node)].raft

    def take(self, *pairs: str) -> list[tuple[int, Outbound]]:
        """Take from the network what is on its way between some nodes, or all."""
        wanted = [(item, not pairs or f"{item[0]}>{item[1].to}" in pairs) for item in self.network]
        self.network = [item for item, asked in wanted if not asked]
        return [item for item, asked in wanted if asked]

    # Commands

    def do_nodes(self, count: str, *rest: str) -> None:
        learners = tuple(int(word) for word in rest if word.isdigit())
        values: dict[str, Any] = {key: int(value) for key, value in (word.split("=") for word in rest if "=" in word)}
        for switch in {"pre_vote", "check_quorum"} & values.keys():
            values[switch] = bool(values[switch])
        self.options = Options(**values)
        self.first = Configuration(tuple(range(1, int(count) + 1)), learners=learners)
        for node_id in self.first.members():
            self.members[node_id] = Member(node_id, self.options, Disk(SnapshotMeta(configuration=self.first)))

    def do_node(self, node: str, *rest: str) -> None:
        values: dict[str, list[int]] = {}
        numbers: list[int] = []
        for word in rest:
            if word.isdigit():
                numbers.append(int(word))
            else:
                numbers = values.setdefault(word, [])
        log = values.get("log", [])
        disk = Disk(SnapshotMeta(configuration=self.first))
        disk.entries = [LogEntry(term, EntryType.DATA, bytes(24) + b"%d" % index) for index, term in enumerate(log, 1)]
        term = values.get("term", [max(log, default=0)])[0]
        disk.state = HardState(term, values.get("vote", [0])[0], values.get("commit", [0])[0])
        self.members[int(node)] = Member(int(node), self.options, disk)

    def do_new(self, *nodes: str) -> None:
        for node in nodes:
            self.members[int(node)] = Member(int(node), self.options, Disk(SnapshotMeta()))

    def do_campaign(self, node: str) -> None:
        self.raft(node).campaign()

    def do_propose(self, node: str, *data: str) -> None:
        for each in data:
            self.raft(node).propose(bytes(int(each[6:])) if each.startswith("bytes=") else each.encode())

    def do_read(self, node: str, *contexts: str) -> None:
        for context in contexts:
            self.raft(node).read_index(int(context))

    def do_transfer(self, node: str, target: str) -> None:
        self.raft(node).transfer_leadership(int(target))

    def do_lost(self, node: str, peer: str) -> None:
        self.raft(node).lost(int(peer))

    def do_leave(self, node: str) -> None:
        self.raft(node).leave_joint()

    def do_members(self, node: str, *rest: str) -> None:
        words = [word for word in rest if word not in {"on", "demand"}]
        at = words.index("learners") if "learners" in words else len(words)
        voters, learners = map(int, words[:at]), map(int, words[at + 1 :])
        self.raft(node).propose_configuration(voters, learners, auto_leave=words == list(rest))

    def do_tick(self, node: str, count: str = "1") -> None:
        for _ in range(int(count)):
            for each in self.members if node == "all" else (int(node),):
                self.members[each].raft.tick()
                self.collect()

    def do_pass(self, count: str = "1") -> None:
        for _ in range(int(count)):
            self.do_tick("all")
            self.do_stabilize()

    def do_deliver(self, *pairs: str) -> None:
        self.collect()
        for sender, outbound in self.take(*pairs):
            self.step(sender, outbound)

    def do_reverse(self, pair: str) -> None:
        for sender, outbound in reversed(self.take(pair)):
            self.step(sender, outbound)

    def do_drop(self, *pairs: str) -> None:
        for sender, outbound in self.take(*pairs):
            self.show(sender, outbound, "lost ")

    def do_double(self, pair: str) -> None:
        self.network += [item for item in self.network if f"{item[0]}>{item[1].to}" == pair]

    def do_stabilize(self) -> None:
        self.collect()
        for _ in range(10_000):
            if not self.network:
                return
            self.step(*self.network.pop(0))
        raise AssertionError("the group does not come to rest")

    def do_cut(self, *pairs: str) -> None:
        self.cuts |= {(int(sender), int(to)) for sender, to in (pair.split(">") for pair in pairs)}

    def do_isolate(self, *nodes: str) -> None:
        inside = {int(node) for node in nodes}
        outside = self.members.keys() - inside
        self.cuts |= {(a, b) for a in inside for b in outside} | {(b, a) for a in inside for b in outside}

    def do_heal(self) -> None:
        self.cuts.clear()

    def do_slow(self, node: str) -> None:
        self.members[int(node)].slow = True

    def do_sync(self, node: str) -> None:
        self.members[int(node)].sync()

    def do_restart(self, node: str) -> None:
        self.members[int(node)].slow = False
        self.members[int(node)].start()
        self.shown.pop(int(node), None)

    def do_snapshot(self, node: str, index: str, *rest: str) -> None:
        member = self.members[int(node)]
        values = dict(zip(rest[::2], map(int, rest[1::2]), strict=True))
        meta_of = member.raft.log.configuration_at(int(index))
        stream = snapshot_header(meta_of)
        stream += bytes(max(0, values.get("bytes", 100) - len(stream)))
        before = member.raft.log.term_of(int(index))
        member.raft.compact(int(index), values.get("keep", 0))
        member.disk.entries = member.disk.entries[int(index) - member.disk.snapshot.index :]
        member.disk.snapshot = SnapshotMeta(int(index), before, meta_of)
        kept = member.disk.streams if "beside" in values else {}
        member.disk.streams = {**kept, int(index): stream}

    def do_state(self, *nodes: str) -> None:
        for node_id, member in self.members.items():
            if not nodes or str(node_id) in nodes:
                self.shown[node_id], self.groups[node_id] = standing(member.raft), members(member.raft.configuration)
                self.lines.append(f"{node_id}: {self.shown[node_id]} {self.groups[node_id]}")
                if member.raft.progress:
                    self.lines.append(f"   knows {followers(member.raft)}")


def replay(recorded: str) -> str:
    """Return a transcript with what its commands say and do now."""
    transcript = Transcript()
    lines: list[str] = []
    for line in recorded.splitlines():
        if line.startswith(">"):
            lines += [line, *(f"    {each}" for each in transcript.play(line[1:].strip()))]
        elif line.startswith("#") or not line.strip():
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(GOLDEN.glob("*.txt")):
        path.write_text(replay(path.read_text()))
