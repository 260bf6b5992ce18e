"""Which plug-ins are found, which are refused and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from twisted.plugin import getPlugins

import hypercache.plugins
from hypercache.config import PluginSettings
from hypercache.discovery import load_plugins
from hypercache.errors import PluginError, SchemaError
from hypercache.interfaces import IEvictionPolicy, IRESPCommand
from hypercache.resp import built_in_commands
from hypercache.wire import SCHEMA, Message
from hypercache.wire.kinds import Part, count, entries, u8

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = """
    @implementer(IPlugin, IEvictionPolicy)
    class Policy:
        name = "{name}"
        evicts = True
        volatile_only = False
        counts_uses = False

        def score(self, candidate):
            return 0.0

    {attribute} = Policy()
"""
MESSAGES = """
    class {name}(Message, frozen=True):
        TYPE: ClassVar[int] = {type}
        ANSWER: ClassVar[int] = {answer}
        PARTS = ({parts})
        {fields}

    @implementer(IPlugin, IMessageHandlerFactory)
    class Factory:
        name = "{factory}"
        messages = ({name},)

        def handlers(self, services):
            return []

    factory = Factory()
"""
LAYER = """
    @implementer(IPlugin, IFrameLayerFactory)
    class Factory:
        name = "{name}"
        order = {order}
        capability = {capability}
        base_peers = False

        def layer(self, link):
            return None

    factory = Factory()
"""
COMMAND = """
    @command("{name}", arity={arity}, flags="{flags}", keys=(1, 1, 1), group="test", summary="A test.")
    def reverse(session, arguments):
        return bulk(arguments[1][::-1])
"""
AUTH = """
    @implementer(IPlugin, IAuthProviderFactory)
    class Factory:
        name = "{name}"

        def provider(self, settings, node_id, wall):
            return None

    factory = Factory()
"""


def policy(name: str, attribute: str = "policy") -> str:
    return POLICY.format(name=name, attribute=attribute)


def messages(
    name: str = "Test",
    message_type: int = 0x90,
    *,
    answer: int = -1,
    parts: str = 'u8("x"),',
    fields: str = "x: int",
    factory: str = "t",
) -> str:
    return MESSAGES.format(name=name, type=message_type, answer=answer, parts=parts, fields=fields, factory=factory)


def layer(name: str, order: object = 50, capability: object = 0) -> str:
    return LAYER.format(name=name, order=order, capability=capability)


def command(name: str, arity: int = 2, flags: str = "readonly fast") -> str:
    return COMMAND.format(name=name, arity=arity, flags=flags)


def test_a_plugin_of_each_kind_is_found_and_ready_to_be_used(plugin_module: Callable[..., Path]) -> None:
    files = {
        "a_policy": plugin_module("a_policy", policy("biggest")),
        "b_messages": plugin_module("b_messages", messages("Weather", 0x90)),
        "c_layer": plugin_module("c_layer", layer("watch", capability=1 << 20)),
        "d_command": plugin_module("d_command", command("test.reverse")),
        "e_auth": plugin_module("e_auth", AUTH.format(name="kerberos")),
    }
    plugins = load_plugins(PluginSettings())
    assert not plugins.failed
    assert [(each.name, each.interface, each.module, each.file) for each in plugins.found] == [
        ("biggest", "IEvictionPolicy", "hypercache.plugins.a_policy", str(files["a_policy"])),
        ("t", "IMessageHandlerFactory", "hypercache.plugins.b_messages", str(files["b_messages"])),
        ("watch", "IFrameLayerFactory", "hypercache.plugins.c_layer", str(files["c_layer"])),
        ("test.reverse", "IRESPCommand", "hypercache.plugins.d_command", str(files["d_command"])),
        ("kerberos", "IAuthProviderFactory", "hypercache.plugins.e_auth", str(files["e_auth"])),
    ]
    assert list(plugins.policies) == ["biggest"]
    assert list(plugins.auth_providers) == ["kerberos"]
    assert plugins.capabilities == 1 << 20
    weather = plugins.schema.by_type(0x90)
    assert weather is plugins.messages[0]
    assert weather.decode_payload(weather(7).encode_payload()) == weather(7)
    table = built_in_commands().extended(plugins.commands)
    found = table.find(b"Test.Reverse")
    assert found is not None
    assert found.function(None, [b"TEST.REVERSE", b"abc"]) == b"$3\r\ncba\r\n"  # type: ignore[arg-type]
    assert table.find(b"get") is not None


def test_the_schema_of_hypercache_itself_stays_as_it_is(plugin_module: Callable[..., Path]) -> None:
    before = SCHEMA.hash()
    plugin_module("good", messages("Weather", 0x90))
    extended = load_plugins(PluginSettings()).schema
    assert SCHEMA.by_type(0x90) is None
    assert SCHEMA.hash() == before != extended.hash()


def test_what_twisted_plugin_finds_is_found(plugin_module: Callable[..., Path]) -> None:
    plugin_module("one", policy("one") + policy("two", "other"))
    plugin_module("two", command("test.reverse"))
    ours = load_plugins(PluginSettings())
    assert {each.name for each in getPlugins(IEvictionPolicy, hypercache.plugins)} == set(ours.policies) == {"one", "two"}
    assert [each.name for each in getPlugins(IRESPCommand, hypercache.plugins)] == [each.name for each in ours.commands]


def test_a_cache_of_twisted_plugin_is_neither_believed_nor_made(plugin_module: Callable[..., Path]) -> None:
    file = plugin_module("one", policy("one"))
    assert len(load_plugins(PluginSettings()).found) == 1
    assert [each.name for each in file.parent.iterdir() if each.name != "__pycache__"] == ["one.py"]
    (file.parent / "dropin.cache").write_bytes(b"no pickle")
    assert len(load_plugins(PluginSettings()).found) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", r"it cannot be imported: ModuleNotFoundError: No module named .* \(bad\.py, line \d+\)"),
        ("def broken(:", r"it cannot be imported: SyntaxError: .*bad\.py, line \d+"),
        ("raise SystemExit(3)", r"it cannot be imported: SystemExit: 3"),
        ("1 / 0", r"it cannot be imported: ZeroDivisionError: division by zero \(bad\.py, line \d+\)"),
        ("x = 1", "no object in it is a plug-in: one that provides twisted.plugin.IPlugin"),
        (policy("p").replace("IPlugin, ", ""), "it does not provide twisted.plugin.IPlugin"),
        (policy("p").replace(", IEvictionPolicy", ""), "it provides none of the interfaces that a plug-in may be of"),
        (policy("p").replace("(self, candidate)", "(self)"), r"it is no IEvictionPolicy: .*doesn't allow enough arguments"),
        (policy("p").replace("counts_uses = False", ""), r"it is no IEvictionPolicy: .*counts_uses attribute was not provided"),
        (policy("p").replace("evicts = True", "evicts = 1"), "its evicts must be True or False, not 1"),
        (policy("p").replace('"p"', "7"), "its name must be a text, not 7"),
        (policy("lru"), "the name 'lru' is HyperCache's own"),
        (policy("allkeys-lru"), "the name 'allkeys-lru' is HyperCache's own"),
        (policy("p").replace('name = "p"', "name = property(lambda self: 1 / 0)"), "looking at it failed: ZeroDivisionError"),
        (AUTH.format(name="hmac"), "the name 'hmac' is HyperCache's own"),
        (command("get"), "the name 'get' is HyperCache's own"),
        (command("Test.Reverse"), "the name 'Test.Reverse' must be in lower case"),
        (command("test reverse"), "the name 'test reverse' must be in lower case, without spaces"),
        (command("test.reverse", 0), "its arity must be a whole number other than 0, not 0"),
        (command("test.reverse").replace("(1, 1, 1)", "(1, 1)"), r"its keys must be a tuple of three whole numbers, not \(1, 1\)"),
        (command("test.reverse").replace("session, arg", "arg"), "it is no IRESPCommand: .*doesn't allow enough arguments"),
        (layer("signing"), "the name 'signing' is HyperCache's own"),
        (layer("l", order='"low"'), "its order must be a whole number, not 'low'"),
        (layer("l", capability=1 << 4), "its capability must be 0 or one of the bits 16 to 31, not 16"),
        (layer("l", capability=3 << 16), "its capability must be 0 or one of the bits 16 to 31"),
        (messages(message_type=0x7F), "Test: the type 0x7f is outside of 0x80 to 0xef"),
        (messages(message_type=0xF0), "Test: the type 0xf0 is outside of 0x80 to 0xef"),
        (messages(message_type=-1), "Test: the type -0x1 is outside of 0x80 to 0xef"),
        (messages(name="Heartbeat"), "Heartbeat: the type 0x90 or the name is taken"),
        (messages(fields="y: int"), r"Test: the fields \['y'\] are not the declared \['x'\]"),
        (messages(answer=0x91), "Test: no message has the type 0x91 of its answer"),
        (messages(parts='short_text("x"), u8("y"),', fields="x: str; y: int"), "parts of a fixed size must stand before all"),
        (messages(parts='rest("x"), short_text("y"),', fields="x: bytes; y: str"), "nothing can follow 'x', which takes the rest"),
        (messages().replace("(Test,)", "[Test]"), "its messages must be a tuple of classes"),
        (messages().replace("(Test,)", "()"), "its messages must be a tuple of classes, one at least"),
        (messages().replace("(Test,)", "(int,)"), "<class 'int'> is no subclass of hypercache.wire.Message"),
    ],
)  # fmt: skip
def test_a_broken_plugin_is_named_with_the_reason_and_others_are_used(
    plugin_module: Callable[..., Path], text: str, reason: str
) -> None:
    file = plugin_module("bad", text)
    plugin_module("good", policy("good"))
    plugins = load_plugins(PluginSettings())
    assert [each.name for each in plugins.found] == ["good"]
    (failed,) = plugins.failed
    assert (failed.module, failed.file) == ("hypercache.plugins.bad", str(file))
    assert re.search(reason, failed.reason), failed.reason
    assert "\n" not in failed.reason
    with pytest.raises(PluginError, match="is left out: "):
        load_plugins(PluginSettings(strict=True))


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (policy("p"), policy("p"), "the name 'p' is taken by hypercache.plugins.a"),
        (AUTH.format(name="x"), AUTH.format(name="x"), "the name 'x' is taken by hypercache.plugins.a"),
        (command("test.x"), command("test.x"), "the name 'test.x' is taken by hypercache.plugins.a"),
        (layer("x"), layer("x"), "the name 'x' is taken by hypercache.plugins.a"),
        (layer("x", capability=1 << 31), layer("y", capability=1 << 31), "the layer 'x' has its capability 0x80000000 already"),
        (messages("One", factory="x"), messages("Two", 0x91, factory="x"), "the name 'x' is taken by hypercache.plugins.a"),
        (messages("One", factory="x"), messages("Two", factory="y"), "Two: the type 0x90 or the name is taken"),
        (messages("One", factory="x"), messages("One", 0x91, factory="y"), "One: the type 0x91 or the name is taken"),
    ],
)
def test_of_two_that_contradict_each_other_the_first_is_taken(
    plugin_module: Callable[..., Path], first: str, second: str, reason: str
) -> None:
    plugin_module("b", second, "first")
    plugin_module("a", first, "second")
    plugins = load_plugins(PluginSettings())
    assert [each.module for each in plugins.found] == ["hypercache.plugins.a"]
    assert [(each.module, each.reason) for each in plugins.failed] == [("hypercache.plugins.b", reason)]
    assert len(list(plugins.schema)) - len(list(SCHEMA)) == len(plugins.messages)


def test_names_of_different_kinds_do_not_meet(plugin_module: Callable[..., Path]) -> None:
    plugin_module("a", policy("echo"))
    plugin_module("b", command("echo.x"))
    plugin_module("c", layer("echo") + AUTH.format(name="echo").replace("factory =", "other ="))
    assert not load_plugins(PluginSettings()).failed


def test_the_second_module_of_one_name_is_named(plugin_module: Callable[..., Path]) -> None:
    first = plugin_module("same", policy("one"), "first")
    second = plugin_module("same", policy("two"), "second")
    plugins = load_plugins(PluginSettings())
    assert list(plugins.policies) == ["one"]
    assert [(each.file, each.reason) for each in plugins.failed] == [(str(second), f"{first} has the same name and comes first")]


def test_a_directory_that_is_on_the_path_twice_counts_once(plugin_module: Callable[..., Path], tmp_path: Path) -> None:
    file = plugin_module("one", policy("one"))
    (tmp_path / "link").symlink_to(file.parent)
    hypercache.plugins.__path__ += [str(file.parent), str(tmp_path / "link")]
    plugins = load_plugins(PluginSettings())
    assert [each.name for each in plugins.found] == ["one"]
    assert not plugins.failed


def test_a_message_may_hold_lists_of_lists(plugin_module: Callable[..., Path]) -> None:
    plugin_module(
        "lists",
        """
        class Leaf(Message, frozen=True):
            PARTS = (u8("x"),)
            x: int

        class Branch(Message, frozen=True):
            PARTS = (count("leaves", 1), entries("leaves", Leaf))
            leaves: tuple[Leaf, ...]

        class Tree(Message, frozen=True):
            TYPE: ClassVar[int] = 0x90
            PARTS = (count("branches", 1), entries("branches", Branch))
            branches: tuple[Branch, ...]

        @implementer(IPlugin, IMessageHandlerFactory)
        class Factory:
            name = "tree"
            messages = (Tree,)

            def handlers(self, services):
                return []

        factory = Factory()
        """,
    )
    (tree,) = load_plugins(PluginSettings(strict=True)).messages
    decoded = tree.decode_payload(bytes((2, 1, 7, 2, 8, 9)))
    assert [[leaf.x for leaf in branch.leaves] for branch in decoded.branches] == [[7], [8, 9]]  # type: ignore[attr-defined]
    assert decoded.encode_payload() == bytes((2, 1, 7, 2, 8, 9))


def test_what_is_disabled_is_left_out_by_the_name_of_the_plugin_or_of_the_module(plugin_module: Callable[..., Path]) -> None:
    plugin_module("two", policy("one") + policy("other", "other"))
    plugin_module("broken", "1 / 0")
    settings = PluginSettings(strict=True, disabled=("one", "broken"))
    plugins = load_plugins(settings)
    assert list(plugins.policies) == ["other"]
    assert [(each.name, each.reason) for each in plugins.disabled] == [("broken", ""), ("one", "")]
    assert [each.name for each in plugins.found] == ["other"]


def test_what_is_disabled_gives_way_to_another_of_its_name(plugin_module: Callable[..., Path]) -> None:
    plugin_module("a", policy("one"))
    plugin_module("b", policy("one"))
    plugins = load_plugins(PluginSettings(disabled=("a",)))
    assert [each.module for each in plugins.found] == ["hypercache.plugins.b"]
    assert not plugins.failed


def test_strict_names_all_that_failed(plugin_module: Callable[..., Path]) -> None:
    plugin_module("a", "1 / 0")
    plugin_module("b", policy("lru"))
    with pytest.raises(PluginError, match=r"a \(.*ZeroDivisionError.*; the plug-in lru \(.*b\.py\) is left out: the name 'lru'"):
        load_plugins(PluginSettings(strict=True))


def test_one_object_under_two_names_is_one_plugin(plugin_module: Callable[..., Path]) -> None:
    plugin_module("a", policy("one") + "\n    again = policy\n")
    plugins = load_plugins(PluginSettings())
    assert [each.name for each in plugins.found] == ["one"]
    assert not plugins.failed


def test_commands_of_hypercache_that_a_plugin_imports_are_no_plugins(plugin_module: Callable[..., Path]) -> None:
    plugin_module("a", "    from hypercache.resp.strings import get\n" + command("test.x"))
    plugins = load_plugins(PluginSettings())
    assert [each.name for each in plugins.found] == ["test.x"]
    assert not plugins.failed


def test_a_command_may_be_an_object_that_provides_the_interface(plugin_module: Callable[..., Path]) -> None:
    plugin_module(
        "a",
        """
        @implementer(IPlugin, IRESPCommand)
        class Double:
            name = "test.double"
            arity = 2
            flags = {"fast"}
            keys = (0, 0, 0)
            group = "test"
            since = "1.0"
            summary = "Doubles."

            def function(self, session, arguments):
                return bulk(arguments[1] * 2)

        double = Double()
        """,
    )
    (entry,) = load_plugins(PluginSettings()).commands
    assert entry.function(None, [b"test.double", b"ab"]) == b"$4\r\nabab\r\n"  # type: ignore[arg-type]
    assert entry.flags == frozenset(("fast",))
    found = built_in_commands().extended([entry]).resolve([b"TEST.DOUBLE", b"x"])
    assert found is not None
    assert found.accepts(2)
    assert not found.accepts(3)


def test_no_directory_of_plugins_needs_to_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hypercache.plugins, "__path__", [str(tmp_path / "nowhere")])
    assert load_plugins(PluginSettings()).found == ()


def distribution(site: Path, name: str, version: str, *record: str) -> None:
    """Have a directory on the path say what was installed into it."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{line},,\n" for line in record))


def test_the_distribution_of_an_installed_plugin_is_known(
    plugin_module: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_module("one", policy("one"), "site")
    plugin_module("stray", policy("two"), "site")
    distribution(tmp_path / "site", "of-one", "1.5", "hypercache/plugins/one.py", "one/__init__.py")
    distribution(tmp_path / "site", "of-others", "2.5", "hypercache/plugins/other.py", "one.py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = load_plugins(PluginSettings()).found
    assert [(each.name, each.distribution, each.version) for each in found] == [("one", "of-one", "1.5"), ("two", "", "")]


def test_the_distribution_of_a_plugin_that_is_installed_as_editable_is_known(
    plugin_module: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_module("one", policy("one"), "project/src")
    plugin_module("stray", policy("two"), "project")
    site = tmp_path / "site"
    distribution(site, "of-one", "1.5", "_editable_impl_of_one.pth")
    (site / "_editable_impl_of_one.pth").write_text(f"# a comment\nimport sys\n\n{tmp_path / 'project' / 'src'}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path / "project")
    found = load_plugins(PluginSettings()).found
    assert [(each.name, each.distribution, each.version) for each in found] == [("one", "of-one", "1.5"), ("two", "", "")]


def test_a_broken_installed_plugin_is_named_with_its_distribution(
    plugin_module: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_module("one", "1 / 0", "site")
    distribution(tmp_path / "site", "of-one", "1.5", "hypercache/plugins/one.py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (failed,) = load_plugins(PluginSettings()).failed
    assert (failed.distribution, failed.version) == ("of-one", "1.5")


def test_a_message_can_be_used_before_any_schema_has_it() -> None:
    class Leaf(Message, frozen=True):
        PARTS: ClassVar[tuple[Part, ...]] = (u8("x"),)
        x: int

    class Early(Message, frozen=True):
        TYPE: ClassVar[int] = 0x90
        PARTS: ClassVar[tuple[Part, ...]] = (count("leaves", 1), entries("leaves", Leaf))
        leaves: tuple[Leaf, ...]

    class Contradictory(Message, frozen=True):
        TYPE: ClassVar[int] = 0x91
        PARTS: ClassVar[tuple[Part, ...]] = (u8("x"),)
        y: int

    assert Leaf.read_entry(b"\x07", 0) == (Leaf(7), 1)
    assert Early.decode_payload(b"\x01\x07") == Early((Leaf(7),))
    assert Early((Leaf(8),)).encode_frame().endswith(b"\x01\x08")
    with pytest.raises(SchemaError, match="the fields"):
        Contradictory(1).encode_payload()
