"""How messages, entries and states read in a transcript."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from hypercache.raft import Configuration, EntryType, State
from hypercache.raft.configuration import decode_configuration
from hypercache.raft.snapshot import HAVE_ALL
from hypercache.wire.codes import Status
from hypercache.wire.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    LogEntry,
    PreVoteRequest,
    PreVoteResponse,
    Propose,
    ProposeResponse,
    ReadIndex,
    ReadIndexResponse,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercache.raft import Raft
    from hypercache.wire.schema import Message

_SESSION_BYTES = 24
_TERMS_SHOWN = 15


def text(data: bytes) -> str:
    return data.decode() if data.isascii() and data.decode("ascii").isprintable() else f"({len(data)} bytes)"


def members(configuration: Configuration) -> str:
    """Return who votes, ``<`` who is being left, ``~`` who learns, ``~<`` who will."""
    parts = [" ".join(map(str, configuration.voters))]
    if configuration.outgoing:
        parts.append("< " + " ".join(map(str, configuration.outgoing)))
    if configuration.learners:
        parts.append("~ " + " ".join(map(str, configuration.learners)))
    if configuration.learners_next:
        parts.append("~< " + " ".join(map(str, configuration.learners_next)))
    if configuration.joint and not configuration.auto_leave:
        parts.append("on demand")
    return "{" + " ".join(parts) + "}"


def entry(item: LogEntry) -> str:
    if item.type == EntryType.CONFIGURATION:
        return members(decode_configuration(item.data))
    return "-" if item.type == EntryType.NO_OP else text(item.data[_SESSION_BYTES:]) or "?"


def entries(first: int, items: Sequence[LogEntry]) -> str:
    if len(items) > _TERMS_SHOWN:
        return f"[{first}..{first + len(items) - 1}]"
    return "[" + ", ".join(f"{index}/{item.term} {entry(item)}" for index, item in enumerate(items, first)) + "]"


def _vote(message: VoteRequest | PreVoteRequest, word: str) -> str:
    return f"{word} t{message.term} with {message.last_log_index}/{message.last_log_term}"


def say(message: Message) -> str:
    """Return a message in a few words; ``3/2`` is index 3, term 2."""
    match message:
        case VoteRequest():
            return _vote(message, "vote for me in") + (" (as the leader wishes)" if message.transfer else "")
        case PreVoteRequest():
            return _vote(message, "would you vote for me in")
        case VoteResponse():
            return f"{'my vote' if message.vote_granted else 'no vote'} t{message.term}"
        case PreVoteResponse():
            return f"{'I would' if message.vote_granted else 'I would not'} t{message.term}"
        case AppendEntries():
            head = f"append t{message.term} after {message.prev_log_index}/{message.prev_log_term} commit {message.leader_commit}"
            return f"{head} {entries(message.prev_log_index + 1, message.entries)}" if message.entries else head
        case AppendResponse():
            if message.success:
                return f"match {message.conflict_index}/{message.conflict_term} t{message.term}"
            if message.conflict_index:
                return f"conflict {message.conflict_index}/{message.conflict_term} t{message.term}"
            return f"you are behind t{message.term}"
        case InstallSnapshot():
            end = message.offset + len(message.data)
            name = f"{message.last_included_index}/{message.last_included_term}"
            return f"snapshot t{message.term} {name} bytes {message.offset}-{end}{' end' if message.done else ''}"
        case SnapshotResponse():
            place = "no more" if message.next_offset == HAVE_ALL else f"from {message.next_offset}"
            return f"snapshot {'taken' if message.success else 'refused'}, {place} t{message.term}"
        case TimeoutNow():
            return f"lead now t{message.term}"
        case Propose():
            return f"propose {text(message.data)}"
        case ProposeResponse():
            if message.status == Status.SUCCESS:
                return f"proposal at {message.index}/{message.term}"
            return "proposal refused: " + ("busy" if message.status == Status.RETRY_LATER else f"ask {message.leader_id}")
        case ReadIndex():
            return f"read {message.context}?"
        case ReadIndexResponse():
            if message.status == Status.SUCCESS:
                return f"read {message.context} at {message.index}"
            return f"read {message.context} refused"
    return repr(message)


def terms(raft: Raft) -> str:
    """Return the terms of the log's entries behind what is compacted."""
    log = raft.log
    held = [item.term for item in log.entries(log.first_index, log.last_index)]
    if len(held) > _TERMS_SHOWN:
        shown = " ".join(f"{term}x{sum(1 for _ in same)}" for term, same in groupby(held))
    else:
        shown = " ".join(map(str, held))
    base = f"({log.first_index - 1}) " if log.first_index > 1 else ""
    return f"{base}{shown}".strip() or "empty"


def standing(raft: Raft) -> str:
    """Return what a node is."""
    leads = f" of {raft.leader}" if raft.leader and raft.state is not State.LEADER else ""
    return f"{raft.state.value}{leads} t{raft.term} vote {raft.vote or '-'} commit {raft.commit} log {terms(raft)}"


def followers(raft: Raft) -> str:
    """Return what a leader knows of its followers: match and next of each."""
    return ", ".join(f"{node} {each.state.value} {each.match}:{each.next}" for node, each in raft.progress.items())
