"""Exactly-once application (dissertation, section 6.3; consistency.md, rule 16)."""

from __future__ import annotations

import pytest

from hypercache.errors import MalformedMessageError, RaftError
from hypercache.raft.sessions import Sessions, Verdict, sequence_of
from hypercache.wire.messages import Propose


def apply(sessions: Sessions, sequence: int, lowest: int = 0, client: int = 7) -> Verdict:
    proposal = Propose(client, sequence, lowest, b"")
    verdict, answer = sessions.judge(proposal)
    if verdict is Verdict.NEW:
        sessions.answered(proposal, b"%d" % sequence)
    elif verdict is Verdict.ANSWERED:
        assert answer == b"%d" % sequence
    return verdict


def test_a_retry_is_answered_and_not_applied() -> None:
    sessions = Sessions()
    assert [apply(sessions, 1), apply(sessions, 1), apply(sessions, 2)] == [Verdict.NEW, Verdict.ANSWERED, Verdict.NEW]


def test_what_the_client_no_longer_waits_for_is_trimmed_and_stale() -> None:
    sessions = Sessions()
    for sequence in (1, 2, 3):
        apply(sessions, sequence)
    assert apply(sessions, 4, lowest=3) is Verdict.NEW
    assert len(sessions) == 2
    assert apply(sessions, 2) is Verdict.STALE


def test_a_new_start_makes_all_older_ones_stale() -> None:
    sessions = Sessions()
    apply(sessions, sequence_of(1, 900))
    assert apply(sessions, sequence_of(2, 1), lowest=sequence_of(2, 0)) is Verdict.NEW
    assert apply(sessions, sequence_of(1, 901), lowest=sequence_of(1, 0)) is Verdict.STALE
    assert len(sessions) == 1


def test_a_clients_answers_are_bounded() -> None:
    sessions = Sessions(answers_max_count=2)
    for sequence in (1, 2, 3):
        apply(sessions, sequence)
    assert [apply(sessions, 1), apply(sessions, 3)] == [Verdict.STALE, Verdict.ANSWERED]


def test_client_zero_has_no_session() -> None:
    sessions = Sessions()
    assert [apply(sessions, 1, client=0), apply(sessions, 1, client=0)] == [Verdict.NEW] * 2
    assert len(sessions) == 0


def test_the_table_survives_in_a_snapshot_and_removed_members_leave_it() -> None:
    sessions = Sessions()
    apply(sessions, 5)
    apply(sessions, 6, client=8)
    encoded = sessions.encode()
    copy, end = Sessions.decode(encoded + b"state")
    assert end == len(encoded)
    assert copy.encode() == encoded
    assert apply(copy, 5) is Verdict.ANSWERED
    copy.forget([7])
    assert len(copy) == 1
    with pytest.raises(MalformedMessageError):
        Sessions.decode(encoded[:-1])


def test_a_sequence_names_a_start_and_a_proposal() -> None:
    assert sequence_of(1, (1 << 40) - 1) < sequence_of(2, 0)
    with pytest.raises(RaftError):
        sequence_of(1 << 24, 0)
