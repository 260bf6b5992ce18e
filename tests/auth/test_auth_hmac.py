from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from hypercache.auth.credentials import Keyring
from hypercache.auth.handshake import CertificateIdentity
from hypercache.auth.hmac import SharedKeyProvider
from hypercache.errors import AuthenticationError
from hypercache.interfaces import IAuthentication, IAuthProvider
from hypercache.wire import Capability
from tests.auth.handshakes import BINDING, CLUSTER, DIALLER_ID, LISTENER_ID, NOW, SKEW, handshakes, key, provider

if TYPE_CHECKING:
    from hypercache.auth.handshake import Handshake

UNSIGNED = {"capabilities": int(Capability.STAMPS)}


def both(sides: tuple[Handshake, Handshake], signs: bool = True) -> tuple[Any, Any]:
    """Return what two nodes with one key make of a link."""
    return tuple(provider([key()], signing=signs).authenticate(side) for side in sides)  # type: ignore[return-value]


def refusal(credentials: list[Any], key_id: str = "main", now: float = NOW, *, dialled: bool = False, **changes: Any) -> str:
    """Return for what the listener, or the dialler, refuses a link."""
    sides = handshakes(key_id, now=now, **changes)
    with pytest.raises(AuthenticationError) as caught:
        provider(credentials, DIALLER_ID if dialled else LISTENER_ID).authenticate(sides[0 if dialled else 1])
    return str(caught.value)


def test_it_has_the_interfaces_of_a_provider_that_proves() -> None:
    made = provider([key()])
    assert verifyObject(IAuthProvider, made)
    assert verifyObject(IAuthentication, made.authenticate(handshakes()[0]))
    assert (made.name, made.required, made.proves) == ("hmac", True, True)


# Proofs


@pytest.mark.parametrize("secure", [False, True])
def test_each_side_accepts_the_others_proof_and_not_its_own(secure: bool) -> None:
    dialler, listener = both(handshakes(secure=secure))
    assert len(dialler.proof) == len(listener.proof) == 32
    assert dialler.verify(listener.proof)
    assert listener.verify(dialler.proof)
    assert not dialler.verify(dialler.proof)
    assert not listener.verify(listener.proof)


@pytest.mark.parametrize("secure", [False, True])
def test_proofs_and_session_keys_are_those_of_the_specification(secure: bool) -> None:
    dialler_view, listener_view = handshakes(secure=secure)
    secret, binding = key().key, BINDING if secure else b""
    transcript = hashlib.sha256(dialler_view.hello_frame + dialler_view.reply_frame).digest()
    extracted = hmac.new(dialler_view.hello.nonce + dialler_view.reply.nonce, secret, "sha256").digest()

    def expanded(label: bytes) -> bytes:
        return hmac.new(extracted, b"hypercache v2 " + label + transcript + b"\x01", "sha256").digest()

    dialler, listener = both((dialler_view, listener_view))
    assert dialler.proof == hmac.new(expanded(b"auth"), b"\x00" + transcript + binding, "sha256").digest()
    assert listener.proof == hmac.new(expanded(b"auth"), b"\x01" + transcript + binding, "sha256").digest()
    assert dialler.keys == (expanded(b"d2l"), expanded(b"l2d"))
    assert listener.keys == (expanded(b"l2d"), expanded(b"d2l"))


def test_a_byte_of_either_hello_that_changes_makes_both_proofs_wrong() -> None:
    sides = handshakes()
    dialler, _ = both(sides)
    for name in ("hello_frame", "reply_frame"):
        whole = getattr(sides[1], name)
        for place in range(len(whole)):
            changed = whole[:place] + bytes((whole[place] ^ 0x40,)) + whole[place + 1 :]
            listener = provider([key()]).authenticate(msgspec.structs.replace(sides[1], **{name: changed}))
            assert not listener.verify(dialler.proof), f"byte {place} of {name}"
            assert not dialler.verify(listener.proof), f"byte {place} of {name}"


@given(st.sampled_from(["hello_frame", "reply_frame"]), st.data())
def test_bytes_that_are_cut_added_or_changed_make_the_proof_wrong(name: str, data: st.DataObject) -> None:
    sides = handshakes()
    whole = getattr(sides[1], name)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    changed = whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:]
    listener = provider([key()]).authenticate(msgspec.structs.replace(sides[1], **{name: changed}))
    assert listener.verify(both(sides)[0].proof) is (changed == whole)


def test_a_byte_that_moves_from_one_hello_to_the_other_makes_the_proof_wrong() -> None:
    # The nonces are in the salt, so that the hash over both frames need not tell where one ends; the frames' headers do too.
    sides = handshakes()
    swapped = msgspec.structs.replace(sides[1], hello_frame=sides[1].reply_frame, reply_frame=sides[1].hello_frame)
    assert not provider([key()]).authenticate(swapped).verify(both(sides)[0].proof)


def test_a_proof_belongs_to_its_tls_session() -> None:
    sides = handshakes(secure=True)
    dialler, _ = both(sides)
    for binding in (bytes(32), BINDING[:-1] + b"\xff"):
        other = provider([key()]).authenticate(msgspec.structs.replace(sides[1], binding=binding))
        assert not other.verify(dialler.proof)
        assert not dialler.verify(other.proof)
    plain = provider([key()]).authenticate(handshakes()[1])
    assert not plain.verify(dialler.proof)


def test_another_key_of_the_same_id_proves_nothing() -> None:
    sides = handshakes()
    dialler, listener = provider([key(seed=1)]).authenticate(sides[0]), provider([key(seed=2)]).authenticate(sides[1])
    assert not listener.verify(dialler.proof)
    assert not dialler.verify(listener.proof)


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(32), bytes(33)])
def test_proofs_of_any_length_are_compared_and_refused(wrong: bytes) -> None:
    assert not both(handshakes())[0].verify(wrong)


def test_proofs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    dialler, listener = both(handshakes())
    monkeypatch.setattr(hmac, "compare_digest", noted)
    assert listener.verify(dialler.proof)
    assert not listener.verify(bytes(32))
    assert compared == [(dialler.proof, dialler.proof), (dialler.proof, bytes(32))]


# Session keys


def test_what_one_side_signs_with_the_other_verifies_with() -> None:
    dialler, listener = both(handshakes())
    assert dialler.keys == listener.keys[::-1]
    assert dialler.keys[0] != dialler.keys[1]


def test_session_keys_and_proofs_differ_with_each_connection() -> None:
    seen = set()
    for seed in range(1, 20):
        dialler, listener = both(handshakes(seed=seed))
        seen |= {*dialler.keys, dialler.proof, listener.proof}
    assert len(seen) == 19 * 4


def test_a_nonce_of_either_side_alone_renews_the_keys() -> None:
    first, _ = both(handshakes())
    for change in ({"hello": {"nonce": bytes(32)}}, {"reply": {"nonce": bytes(32)}}):
        other, _ = both(handshakes(**change))  # type: ignore[arg-type]
        assert not {*first.keys} & {*other.keys}


# Signing


@pytest.mark.parametrize(
    ("changes", "own_setting", "signed"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"hello": UNSIGNED}, True, False),
        ({"reply": UNSIGNED}, True, False),
        ({"hello": UNSIGNED, "reply": UNSIGNED}, False, False),
    ],
)
def test_over_tls_frames_are_signed_where_both_sides_want_it(changes: dict[str, Any], own_setting: bool, signed: bool) -> None:
    for side in both(handshakes(secure=True, **changes), own_setting):
        assert (side.keys is not None) is signed


def test_without_tls_frames_are_signed_whatever_is_set() -> None:
    for side in both(handshakes(), False):
        assert side.keys is not None


def test_without_tls_a_side_that_does_not_sign_is_refused() -> None:
    assert refusal([key()], hello=UNSIGNED) == "it does not sign frames, and there is no TLS instead"
    assert refusal([key()], reply=UNSIGNED) == "this node does not sign frames, and there is no TLS instead"
    assert refusal([key()], reply=UNSIGNED, dialled=True) == "it does not sign frames, and there is no TLS instead"


def test_tls_that_cannot_be_bound_to_is_refused() -> None:
    side = msgspec.structs.replace(handshakes(secure=True)[1], binding=b"")
    with pytest.raises(AuthenticationError, match=r"^TLS gives nothing that binds the proofs to its session$"):
        provider([key()]).authenticate(side)


# Which key, and when


def test_an_unknown_key_is_refused() -> None:
    assert refusal([key()], "other") == "key 'other' is unknown here"


def test_an_id_cannot_forge_lines_in_the_log() -> None:
    assert "\n" not in refusal([key()], "x\nauthentication went well")


def test_a_peer_that_names_no_key_is_refused_and_so_is_a_node_that_has_none() -> None:
    assert refusal([key()], "") == "it names no key"
    assert refusal([key()], "", dialled=True) == "this node has no key that is valid now"


def test_a_key_is_accepted_earlier_and_later_by_the_skew_and_no_more() -> None:
    one = key(valid_from=NOW, valid_to=NOW + 100)
    for now in (NOW - SKEW, NOW, NOW + 100, NOW + 100 + SKEW - 0.5):
        for side in handshakes(now=now):
            provider([one]).authenticate(side)
    assert refusal([one], now=NOW - SKEW - 0.5) == "key 'main' is not valid before 2027-01-15T08:00:00Z"
    assert refusal([one], now=NOW + 100 + SKEW) == "key 'main' expired at 2027-01-15T08:01:40Z"
    assert refusal([one], now=NOW + 100 + SKEW, dialled=True) == "key 'main' expired at 2027-01-15T08:01:40Z"


def test_a_link_ends_with_its_key_where_it_was_dialled_and_later_by_the_skew_where_it_was_accepted() -> None:
    def ends(now: float) -> list[float]:
        return [provider([key(valid_to=NOW + 100)]).authenticate(side).expires - NOW for side in handshakes(now=now)]

    assert ends(NOW) == ends(NOW + 99) == [100, 100 + SKEW]
    # Dialled although the key has ended: only the skew is left.
    assert ends(NOW + 100) == [100 + SKEW, 100 + SKEW]


def test_clocks_that_differ_by_the_skew_never_part_nodes_with_the_same_keys() -> None:
    keys = [key("old", valid_to=NOW), key("new", valid_from=NOW, valid_to=NOW + 1000), key("own", DIALLER_ID, NOW + 300, NOW + 600)]
    for tenths in range(-2000, 8000, 7):
        now = NOW + tenths / 10
        chosen = provider(keys, DIALLER_ID, now).key_id()
        for difference in (-SKEW, 0, SKEW - 0.01):
            provider(keys).authenticate(handshakes(chosen, now=now + difference)[1])


def test_a_key_of_another_node_is_refused_by_both_sides() -> None:
    bound = key("six", 6)
    assert refusal([bound], "six") == "key 'six' is node 6's, and node 5 uses it"
    assert refusal([bound], "six", dialled=True) == "key 'six' is node 6's, and node 5 uses it"


def test_a_nodes_own_key_authenticates_it_where_it_dials() -> None:
    bound = key("five", DIALLER_ID)
    dialler, listener = (provider([bound]).authenticate(side) for side in handshakes("five"))
    assert listener.verify(dialler.proof)
    assert dialler.verify(listener.proof)


def test_who_has_only_the_shared_key_cannot_pose_as_a_node_with_its_own() -> None:
    shared, own = key(), key("five", DIALLER_ID, NOW - 500, NOW + 500)
    assert refusal([shared, own]) == "node 5 has a key of its own, and uses the shared key 'main'"
    # Where the own key may not have begun, or may have ended, by the other's clock, it is not yet or no more insisted on.
    for now in (NOW - 500 + SKEW - 1, NOW + 500 - SKEW):
        provider([shared, own]).authenticate(handshakes(now=now)[1])
    provider([shared, key("six", 6)]).authenticate(handshakes()[1])


def test_a_certificate_of_another_node_is_refused_although_the_key_is_right() -> None:
    certificate = CertificateIdentity(CLUSTER, 6)
    assert refusal([key()], certificate=certificate) == "its certificate is node 6's, and it says that it is node 5"


# Rotation


def test_keys_rotate_without_a_moment_in_which_nobody_is_let_in() -> None:
    old, new = key("old", seed=1, valid_to=NOW + 100), key("new", seed=2, valid_from=NOW + 50, valid_to=NOW + 1000)
    used = []
    for now in range(int(NOW), int(NOW) + 900, 10):
        chosen = provider([old, new], DIALLER_ID, now).key_id()
        used.append(chosen)
        dialler, listener = (provider([old, new]).authenticate(side) for side in handshakes(chosen, now=now))
        assert listener.verify(dialler.proof)
    assert used == ["old"] * 5 + ["new"] * 85


def test_while_both_are_valid_each_is_accepted_and_after_its_end_the_old_one_is_not() -> None:
    keys = [key("old", valid_to=NOW), key("new", valid_from=NOW - 50, valid_to=NOW + 1000)]
    for key_id in ("old", "new"):
        provider(keys).authenticate(handshakes(key_id, now=NOW - 1)[1])
    assert refusal(keys, "old", NOW + SKEW).startswith("key 'old' expired at ")
    provider(keys).authenticate(handshakes("new", now=NOW + SKEW)[1])


def test_keys_that_are_exchanged_while_the_node_runs_count_at_once() -> None:
    rings = [Keyring([key("a")])]
    made = SharedKeyProvider(lambda: rings[0], LISTENER_ID, lambda: NOW, skew=SKEW)
    assert made.key_id() == "a"
    rings[0] = Keyring([key("b")])
    assert made.key_id() == "b"
    with pytest.raises(AuthenticationError, match="unknown"):
        made.authenticate(handshakes("a")[1])


def test_a_node_without_a_valid_key_names_none() -> None:
    assert provider([key(valid_to=NOW - SKEW)]).key_id() == ""
