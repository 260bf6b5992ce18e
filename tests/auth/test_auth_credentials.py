from __future__ import annotations

import base64
import io
import random

import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st

from hypercache.auth import credentials
from hypercache.auth.credentials import ANY_NODE, Keyring, NodeCredential, instant, key_line, parse_keys
from hypercache.errors import ConfigurationError
from tests.auth.handshakes import NOW, SKEW, key

SECRET = random.Random(5).randbytes(32)
GOOD = b'{"id": "a", "node": 7, "from": "2027-01-01T00:00:00Z", "to": "2027-02-01T02:00:00+02:00", "key": "%s"}' % base64.b64encode(
    SECRET
)


def test_a_line_is_read_with_its_dates_in_any_time_zone() -> None:
    (only,) = parse_keys(b"# comment\n\n  " + GOOD + b"\r\n", "f")
    assert only == NodeCredential("a", 7, SECRET, 1_798_761_600.0, 1_801_440_000.0)


def test_a_key_without_a_node_is_any_members() -> None:
    (only,) = parse_keys(GOOD.replace(b'"node": 7, ', b""), "f")
    assert only.node_id == ANY_NODE


@given(
    key_id=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60),
    node_id=st.integers(0, 2**64 - 1),
    secret=st.binary(min_size=32, max_size=32),
    times=st.lists(st.integers(0, 253_402_300_799), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_what_is_written_as_a_line_is_read_as_the_same_key(key_id: str, node_id: int, secret: bytes, times: list[int]) -> None:
    credential = NodeCredential(key_id, node_id, secret, *map(float, times))
    assert list(parse_keys(key_line(credential), "f")) == [credential]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"{", b"[]", "got `array`"),
        (b", ", b" ", "malformed"),
        (b'"id": "a", ', b"", "missing required field `id`"),
        (b'"id"', b'"name"', "unknown field `name`"),
        (b'"a"', b'""', "1 to 255 bytes"),
        (b'"a"', b'"%s"' % (b"x" * 256), "1 to 255 bytes"),
        (b'"a"', b'"a\\nb"', "that can be printed"),
        (b": 7", b": -1", "0 for any member"),
        (b": 7", b": 18446744073709551616", "0 for any member"),
        (b": 7", b': "7"', r"Expected `int`, got `str` - at `\$.node`"),
        (b"2027-01-01T00:00:00Z", b"2027-01-01", r"RFC3339 encoded datetime - at `\$.from`"),
        (b"2027-01-01T00:00:00Z", b"2027-01-01T00:00:00", r"timezone component - at `\$.from`"),
        (b"2027-01-01T00:00:00Z", b"2027-02-01T00:00:00Z", "end after it begins"),
        (b"2027-01-01T00:00:00Z", b"1969-12-31T23:59:59Z", "between the years 1970"),
        (base64.b64encode(SECRET), base64.b64encode(SECRET[:31]), "must have 32 bytes, not 31"),
        (base64.b64encode(SECRET), b"?", r"Invalid base64 encoded string - at `\$.key`"),
    ],
)
def test_a_bad_line_is_named_with_its_fault_and_the_right_form(old: bytes, new: bytes, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError, match=rf"^keys\.txt, line 2: .*{told}.*; write {{.*hypercache keygen") as caught:
        parse_keys(b"#\n" + GOOD.replace(old, new, 1), "keys.txt")
    assert base64.b64encode(SECRET).decode()[:10] not in str(caught.value)


def test_an_id_that_is_there_twice_is_refused_with_both_lines() -> None:
    with pytest.raises(ConfigurationError, match=r"^f, line 3: the key of line 1 has the id 'a' too"):
        parse_keys(GOOD + b"\n\n" + GOOD, "f")
    with pytest.raises(ConfigurationError, match="two keys have the id 'main'"):
        Keyring([key(), key()])


def test_there_are_so_many_keys_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "CREDENTIALS_MAX_COUNT", 2)
    lines = [key_line(key(name)) for name in "abc"]
    assert len(parse_keys(b"".join(lines[:2]), "f")) == 2
    with pytest.raises(ConfigurationError, match=r"^f has more than 2 keys"):
        parse_keys(b"".join(lines), "f")


def test_no_form_of_a_key_that_is_shown_has_its_bytes() -> None:
    credential = NodeCredential("a", 7, b"Z" * 32, NOW, NOW + 1)
    page = io.StringIO()
    rich.console.Console(file=page).print(credential, [credential])
    for shown in (repr(credential), str(credential), f"{credential}", repr([credential]), page.getvalue()):
        assert "'a'" in shown
        assert "ZZ" not in shown


@pytest.mark.parametrize(("now", "skew", "valid"), [(9, 0, False), (10, 0, True), (19.9, 0, True), (20, 0, False)])
def test_a_key_is_valid_from_its_first_instant_until_before_its_last(now: float, skew: float, valid: bool) -> None:
    assert NodeCredential("a", 0, SECRET, 10, 20).valid(now, skew) is valid


@pytest.mark.parametrize(("now", "valid"), [(7.9, False), (8, True), (21.9, True), (22, False)])
def test_the_skew_is_allowed_at_both_ends(now: float, valid: bool) -> None:
    assert NodeCredential("a", 0, SECRET, 10, 20).valid(now, 2) is valid


def test_instants_are_rfc_3339() -> None:
    assert instant(1_755_685_845.9) == "2025-08-20T10:30:45Z"


class TestTheKeyToUse:
    def test_the_newest_that_is_valid(self) -> None:
        old, new, later = key("old"), key("new", valid_from=NOW - 10), key("later", valid_from=NOW + 10, valid_to=NOW + 9999)
        for keys in ([old, new, later], [later, new, old]):
            assert Keyring(keys).choose(5, NOW, SKEW) is new
            assert Keyring(keys).choose(5, NOW + 10, SKEW) is later
            assert Keyring(keys).choose(5, NOW + 2000, SKEW) is later

    def test_one_that_only_the_skew_makes_valid_is_the_last_choice(self) -> None:
        ended, coming = key("ended", valid_to=NOW - 10), key("coming", valid_from=NOW + 30)
        assert Keyring([ended]).choose(5, NOW, SKEW) is ended
        assert Keyring([ended, coming]).choose(5, NOW, SKEW) is coming
        valid = key("valid", valid_from=NOW - 5000)
        assert Keyring([ended, coming, valid]).choose(5, NOW, SKEW) is valid
        assert Keyring([ended, coming]).choose(5, NOW, 5) is None

    def test_a_nodes_own_before_a_shared_one_and_never_anothers(self) -> None:
        own, other, shared = key("own", 5), key("other", 6), key("shared", valid_from=NOW - 1)
        assert Keyring([own, other, shared]).choose(5, NOW, SKEW) is own
        assert Keyring([other, shared]).choose(5, NOW, SKEW) is shared
        assert Keyring([other]).choose(5, NOW, SKEW) is None

    def test_of_two_that_begin_together_the_same_one_everywhere(self) -> None:
        pair = [key("a"), key("b")]
        assert Keyring(pair).choose(5, NOW, SKEW) is Keyring(pair[::-1]).choose(5, NOW, SKEW)
