"""The settings: frozen structs with their defaults, and how TOML and ``--set`` become them.

Pure: text in, settings out. The doors read the files.
"""

from __future__ import annotations

import difflib
import tomllib
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

import msgspec

from hypercache import limits
from hypercache.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SIZE_UNITS: Final = {"": 1, "b": 1, "kb": limits.KIB, "mb": limits.MIB, "gb": 1024 * limits.MIB}


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class NodeSettings(_Section, frozen=True):
    """``[node]``."""

    name: str = ""
    id: int = 0
    data_dir: str = "./hypercache-data"
    advertise: str = ""


class RespSettings(_Section, frozen=True):
    """``[resp]``: the door for Redis clients."""

    listen: str = "6379"
    password: str = ""
    databases: int = limits.DATABASES_COUNT
    max_clients: int = limits.CLIENTS_MAX_COUNT
    idle_timeout: float = 0.0
    value_max: int = limits.VALUE_MAX_BYTES
    query_buffer: int = limits.QUERY_BUFFER_MAX_BYTES
    output_pause: int = limits.OUTPUT_BUFFER_PAUSE_BYTES
    output_max: int = limits.OUTPUT_BUFFER_MAX_BYTES
    output_stall: float = limits.OUTPUT_STALL_SECONDS


class ClusterSettings(_Section, frozen=True):
    """``[cluster]``: the port for other nodes."""

    listen: str = "7379"
    join: tuple[str, ...] = ()
    id: int = 0
    heartbeat: float = limits.HEARTBEAT_INTERVAL_SECONDS
    silence: float = limits.LINK_SILENCE_SECONDS
    connect_timeout: float = limits.CONNECT_TIMEOUT_SECONDS
    hello_timeout: float = limits.HELLO_TIMEOUT_SECONDS
    auth_timeout: float = limits.AUTH_TIMEOUT_SECONDS
    idle_timeout: float = limits.LINK_IDLE_SECONDS
    request_timeout: float = limits.REQUEST_TIMEOUT_SECONDS
    request_attempts: int = limits.REQUEST_ATTEMPTS_COUNT
    handshakes_max: int = limits.HANDSHAKES_MAX_COUNT
    reconnect_first: float = limits.RECONNECT_FIRST_SECONDS
    reconnect_max: float = limits.RECONNECT_MAX_SECONDS
    max_nodes: int = limits.MAX_NODES_COUNT
    max_frame: int = limits.MAX_FRAME_BYTES
    receive_budget: int = limits.RECEIVE_BUDGET_BYTES
    frame_timeout: float = limits.FRAME_TIMEOUT_SECONDS
    resync_bytes_max: int = limits.RESYNC_MAX_BYTES
    errors_max: int = limits.ERRORS_MAX_COUNT
    batch_frames: int = limits.BATCH_MAX_COUNT
    batch_bytes: int = limits.BATCH_MAX_BYTES
    batch_delay: float = 0.0
    streams_max: int = limits.STREAMS_MAX_COUNT


class AdminSettings(_Section, frozen=True):
    """``[admin]``: the HTTP port for operators."""

    listen: str = "8379"


class MemorySettings(_Section, frozen=True):
    """``[memory]``."""

    maxmemory: int = 0
    policy: str = "none"
    samples: int = limits.EVICTION_SAMPLES_COUNT
    expiry_budget: float = limits.EXPIRY_TICK_BUDGET_SECONDS


class ReplicationSettings(_Section, frozen=True):
    """``[replication]``."""

    window: int = limits.REPLICATION_WINDOW_COUNT
    window_bytes: int = limits.REPLICATION_WINDOW_BYTES
    outbox: int = limits.REPLICATION_OUTBOX_MAX_COUNT
    tombstones_max: int = limits.TOMBSTONES_MAX_COUNT
    tombstone_ttl: float = limits.TOMBSTONE_TTL_SECONDS
    clock_skew_max: float = limits.CLOCK_SKEW_MAX_SECONDS


class RaftSettings(_Section, frozen=True):
    """``[raft]``: the log that all members share."""

    heartbeat: float = limits.RAFT_HEARTBEAT_SECONDS
    election: float = limits.RAFT_ELECTION_SECONDS
    lease: bool = False
    segment: int = limits.RAFT_SEGMENT_BYTES
    snapshot_after: int = limits.RAFT_SNAPSHOT_AFTER_BYTES
    keep: int = limits.RAFT_KEEP_ENTRIES_COUNT
    voters: int = limits.RAFT_VOTERS_MAX_COUNT
    out_after: float = limits.RAFT_OUT_AFTER_SECONDS


class SecuritySettings(_Section, frozen=True):
    """``[security]``."""

    insecure: bool = False
    auth: str = "none"
    key_file: str = ""
    signing: bool = True
    clock_skew: float = limits.CREDENTIAL_SKEW_SECONDS
    failure_delay: float = limits.AUTH_FAILURE_DELAY_SECONDS


class TLSSettings(_Section, frozen=True):
    """``[cluster_tls]``, ``[resp_tls]``, ``[admin_tls]``: the certificates of one port; TLS is on where there is a certificate."""

    certificate: str = ""
    key: str = ""
    ca: str = ""
    clients: str = "none"
    minimum: str = "1.2"


class CompressionSettings(_Section, frozen=True):
    """``[compression]``: of frames between nodes."""

    codec: str = "off"
    threshold: int = limits.COMPRESSION_THRESHOLD_BYTES
    ratio_max: int = limits.COMPRESSION_RATIO_MAX


class RateSettings(_Section, frozen=True):
    """``[rate]``: the token bucket of each link; off where ``per_second`` is 0."""

    per_second: float = 0.0
    burst: int = limits.RATE_BURST_COUNT
    policy: str = "pause"
    costs: tuple[str, ...] = ()


class TracingSettings(_Section, frozen=True):
    """``[tracing]``."""

    sample: float = 0.0
    export: str = "off"
    endpoint: str = ""


class PluginSettings(_Section, frozen=True):
    """``[plugins]``."""

    strict: bool = False
    disabled: tuple[str, ...] = ()


class Settings(_Section, frozen=True):
    """All settings of a node."""

    node: NodeSettings = NodeSettings()
    resp: RespSettings = RespSettings()
    cluster: ClusterSettings = ClusterSettings()
    admin: AdminSettings = AdminSettings()
    memory: MemorySettings = MemorySettings()
    replication: ReplicationSettings = ReplicationSettings()
    raft: RaftSettings = RaftSettings()
    security: SecuritySettings = SecuritySettings()
    cluster_tls: TLSSettings = TLSSettings(clients="require")
    resp_tls: TLSSettings = TLSSettings()
    admin_tls: TLSSettings = TLSSettings()
    compression: CompressionSettings = CompressionSettings()
    rate: RateSettings = RateSettings()
    tracing: TracingSettings = TracingSettings()
    plugins: PluginSettings = PluginSettings()


SIZES: Final = frozenset(
    (
        "resp.value_max",
        "resp.query_buffer",
        "resp.output_pause",
        "resp.output_max",
        "cluster.max_frame",
        "cluster.receive_budget",
        "cluster.resync_bytes_max",
        "cluster.batch_bytes",
        "compression.threshold",
        "memory.maxmemory",
        "replication.window_bytes",
        "raft.segment",
        "raft.snapshot_after",
    )
)
"""Settings that are bytes, and may be written ``64mb``."""

_LOWEST: Final[Mapping[str, float]] = {
    "resp.databases": 1,
    "resp.max_clients": 1,
    "resp.value_max": 1024,
    "resp.query_buffer": 1024,
    "resp.output_pause": 1024,
    "resp.output_max": 1024,
    "resp.output_stall": 0.1,
    "cluster.heartbeat": 0.01,
    "cluster.silence": 0.1,
    "cluster.connect_timeout": 0.1,
    "cluster.hello_timeout": 0.1,
    "cluster.auth_timeout": 0.1,
    "cluster.idle_timeout": 1,
    "cluster.request_timeout": 0.1,
    "cluster.request_attempts": 1,
    "cluster.handshakes_max": 1,
    "cluster.batch_frames": 1,
    "cluster.batch_bytes": 1,
    "cluster.streams_max": 1,
    "cluster.reconnect_first": 0.01,
    "cluster.reconnect_max": 0.01,
    "cluster.max_nodes": 1,
    "cluster.max_frame": 1024,
    "cluster.receive_budget": 1024,
    "cluster.frame_timeout": 0.1,
    "memory.samples": 1,
    "memory.expiry_budget": 0.0001,
    "replication.window": 1,
    "replication.window_bytes": 1024,
    "replication.outbox": 1,
    "replication.clock_skew_max": 0.001,
    "raft.heartbeat": 0.01,
    "raft.election": 0.05,
    "raft.segment": 4096,
    "raft.snapshot_after": 4096,
    "raft.voters": 1,
    "compression.ratio_max": 2,
    "rate.burst": 1,
}
"""Numbers that must be at least this; all others at least 0."""

_HIGHEST: Final[Mapping[str, float]] = {"raft.voters": limits.RAFT_VOTERS_MAX_COUNT}
"""Numbers that must be at most this."""

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"{port}_tls.clients": ("none", "optional", "require") for port in ("cluster", "resp", "admin")},
    **{f"{port}_tls.minimum": ("1.2", "1.3") for port in ("cluster", "resp", "admin")},
    "compression.codec": ("off", "zstd", "lz4"),
    "rate.policy": ("pause", "reject"),
    "tracing.export": ("off", "otlp", "console"),
}
"""Texts of which there are only these."""


def setting_names() -> dict[str, Any]:
    """Return every ``section.key`` and its type."""
    return {
        f"{section}.{key}": kind for section, cls in get_type_hints(Settings).items() for key, kind in get_type_hints(cls).items()
    }


def load_settings(text: str = "", overrides: Iterable[str] = ()) -> Settings:
    """Return the settings that a TOML text and overrides make.

    Args:
        text: TOML; what it leaves out has its default.
        overrides: ``section.key=value`` each; later ones win.

    Raises:
        ConfigurationError: something is unknown, ill-typed or out of range; all such places are named.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the configuration is no TOML: {error}") from None
    problems: list[str] = []
    values: dict[str, Any] = {}
    for section, content in given.items():
        if isinstance(content, dict):
            values |= {f"{section}.{key}": value for key, value in content.items()}
        else:
            problems.append(f"{section!r} stands outside of any section{_nearest(section)}")
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            problems.append(f"{override!r} is no override; write section.key=value")
        else:
            values[name.strip()] = _Text(value.strip())
    sections: dict[str, dict[str, Any]] = {}
    kinds = setting_names()
    for name, value in values.items():
        if name not in kinds:
            problems.append(f"unknown setting {name}{_nearest(name)}")
            continue
        try:
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = _typed(name, kinds[name], value)
        except ValueError as error:
            problems.append(f"{name} = {value!r}: {error}")
    if problems:
        raise ConfigurationError("; ".join(problems))
    sections = {section: sections.get(section, {}) for section in get_type_hints(Settings)}
    defaults = Settings()
    return Settings(
        **{section: msgspec.structs.replace(getattr(defaults, section), **content) for section, content in sections.items()}
    )


class _Text(str):
    """A value from the command line, whose type the schema gives."""

    __slots__ = ()


def _nearest(name: str) -> str:
    names = setting_names()
    close = difflib.get_close_matches(name, names, 1, 0.5)
    if not close:
        close = [full for full in names if full.partition(".")[2] == name.rpartition(".")[2]][:1]
    return f"; did you mean {close[0]}?" if close else ""


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Return a value as its setting's type.

    Raises:
        ValueError: it is not of that type, or out of range.
    """
    from_text = isinstance(value, _Text)
    if kind is bool:
        if from_text and value in ("true", "false"):
            return value == "true"
        if isinstance(value, bool):
            return value
        raise ValueError("must be true or false")
    if kind is str:
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"must be one of {', '.join(_CHOICES[name])}")
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int) and not isinstance(value, bool) and name.endswith(".listen"):
            return str(value)
        raise ValueError("must be a text")
    if get_args(kind):
        if from_text:
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise ValueError("must be a list of texts")
    number = _size(value) if name in SIZES else _number(kind, value)
    lowest = _LOWEST.get(name, 0)
    if number < lowest:
        raise ValueError(f"must be at least {lowest:g}")
    highest = _HIGHEST.get(name)
    if highest is not None and number > highest:
        raise ValueError(f"must be at most {highest:g}")
    return number


def _number(kind: Any, value: Any) -> int | float:
    wanted = "a whole number" if kind is int else "a number"
    try:
        if isinstance(value, str):
            return kind(value) if isinstance(value, _Text) else _refuse(wanted)
        if isinstance(value, bool) or (kind is int and not isinstance(value, int)):
            return _refuse(wanted)
        number: int | float = kind(value)
        if not isfinite(number):
            return _refuse(wanted)
    except (TypeError, ValueError):
        return _refuse(wanted)
    return number


def _refuse(wanted: str) -> int:
    raise ValueError(f"must be {wanted}")


def _size(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip().lower()
        digits = text.rstrip("kmgb")
        if digits.isdecimal() and text[len(digits) :] in _SIZE_UNITS:
            return int(digits) * _SIZE_UNITS[text[len(digits) :]]
    raise ValueError("must be a number of bytes, or one with kb, mb or gb")


def as_toml(settings: Settings) -> str:
    """Return the settings as TOML that loads back to the same."""
    lines: list[str] = []
    for section, content in msgspec.to_builtins(settings).items():
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in content.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    # JSON's texts, numbers, booleans and lists are TOML's as well.
    return msgspec.json.encode(value).decode()
