"""Every knob of the server: one frozen dataclass, filled from flags, environment and a file.

A field `max_context` is the flag `--max-context`, the variable IXC_MAX_CONTEXT and the key
`max_context` of the TOML file; its annotation holds the help text. Precedence: flag, then variable,
then file, then default. The fields of `limits` are the file's [limits].
This module alone reads the environment, and only through the mapping it is given.
"""

import argparse
import dataclasses
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ixc_runtime.models_root import MODEL_ID_RULE, is_model_id
from ixc_service.limits import MIB, Limits
from ixc_service.log_events import LogFormat


class SettingsError(ValueError):
    """A flag, variable or file that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    # Where
    model: Annotated[Path | None, "folder of the checkpoint to serve"] = None
    model_name: Annotated[
        str, "what the model is called, as in models/NAME; default: as its folder is"
    ] = ""
    listen: Annotated[
        tuple[str, ...], "addresses, comma-separated: HOST:PORT (port 0: any) or unix:PATH"
    ] = ("127.0.0.1:50051",)
    insecure_listen: Annotated[bool, "allow plaintext on addresses other than loopback"] = False
    data_dir: Annotated[
        Path | None,
        "folder of sessions and media; default $XDG_STATE_HOME/ixc or ~/.local/state/ixc",
    ] = None
    models_root: Annotated[
        Path | None, "folder of models by name, to load, merge and quantise at run time"
    ] = None
    adapters_root: Annotated[
        Path | None, "folder of users' adapters by name, in PEFT layout, to load at run time"
    ] = None
    instance: Annotated[str, "name of this server in x-instance; default: a random one"] = ""

    # The engine
    device: Annotated[Literal["cpu", "cuda"], "where the model runs"] = "cpu"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", ""],
        "arithmetic of the model; default: the device's best",
    ] = ""
    max_context: Annotated[int, "longest sequence in tokens; 0: the model's native length"] = 0
    max_batch: Annotated[int, "sequences running at once; 0: the engine's default"] = 0
    kv_bytes: Annotated[int, "memory for the KV cache in bytes; 0: chosen from what is free"] = 0
    adapter_bytes: Annotated[
        int, "memory for users' adapters in bytes; 0: of a GPU a part, of a host what is free"
    ] = 0
    max_step_tokens: Annotated[int, "tokens in one step; 0: the engine's default"] = 0
    queue_limit: Annotated[int, "requests that may wait; 0: four times max_batch"] = 0
    prefix_cache: Annotated[bool, "share pages between requests that begin alike"] = True
    threads: Annotated[int, "threads of the CPU backend; 0: one per core"] = 0
    step_timeout_seconds: Annotated[
        float, "an engine silent over one step for so long is killed and restarted; 0: never"
    ] = 60.0
    in_process: Annotated[bool, "run the engine inside this process (tests, embedding)"] = False

    # Jobs: merging and quantising
    job_device: Annotated[Literal["cpu", "cuda"], "where jobs run"] = "cpu"
    job_threads: Annotated[int, "threads of a job; 0: half of the cores"] = 0

    # What is kept
    flush_interval_seconds: Annotated[float, "least time between deltas where unset"] = 0.02
    retained_bytes: Annotated[int, "memory for the logs of ended generations"] = 256 * MIB
    media_ttl_seconds: Annotated[float, "how long unreferenced media are kept"] = 3600.0

    # Life cycle
    drain_notice_seconds: Annotated[
        float, "on SIGTERM: of the grace, how long to go on accepting while balancers look away"
    ] = 10.0
    drain_grace_seconds: Annotated[
        float, "on SIGTERM: until answers that have not ended are cut off"
    ] = 45.0
    reflection: Annotated[bool, "offer gRPC reflection"] = True
    log_level: Annotated[Literal["debug", "info", "warning", "error"], "least level logged"] = (
        "info"
    )
    log_format: Annotated[LogFormat, "form of the log on standard error"] = "text"

    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.model_name and not is_model_id(self.model_name):
            raise SettingsError(f"model_name is {self.model_name!r}; it must be {MODEL_ID_RULE}")
        for name in (
            *("max_context", "max_batch", "kv_bytes", "adapter_bytes", "max_step_tokens"),
            *("queue_limit", "job_threads"),
        ):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must not be negative")
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_seconds") and not 0 <= value < float("inf"):
                raise SettingsError(f"{item.name} is {value}; it must be finite and not negative")
        for item in dataclasses.fields(self.limits):
            value = getattr(self.limits, item.name)
            if not 0 < value < float("inf"):
                raise SettingsError(f"{item.name} is {value}; it must be finite and positive")
        if not self.listen:
            raise SettingsError("listen is empty; name at least one address")
        for address in self.listen:
            check_address(address, insecure_allowed=self.insecure_listen)

    def resolved_data_dir(self, environ: Mapping[str, str]) -> Path:
        if self.data_dir is not None:
            return self.data_dir.expanduser()
        state = environ.get("XDG_STATE_HOME")
        return (Path(state) if state else Path.home() / ".local" / "state") / "ixc"


def check_address(address: str, *, insecure_allowed: bool) -> None:
    """Plaintext leaves this machine only when somebody has said so."""
    if address.startswith("unix:"):
        if len(address) == len("unix:"):
            raise SettingsError("listen: unix: needs a path, as in unix:/run/ixc.sock")
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise SettingsError(f"listen: {address!r} is neither HOST:PORT nor unix:PATH")
    loopback = host == "localhost" or host.startswith("127.") or host in {"[::1]", "::1"}
    if not loopback and not insecure_allowed:
        raise SettingsError(
            f"listen: {address!r} would carry prompts in plaintext beyond this machine; put a "
            "TLS proxy in front, or say --insecure-listen if the network is trusted"
        )


# ---- from the outside world to Settings


def load(argv: Sequence[str], environ: Mapping[str, str], *, prog: str = "ixc serve") -> Settings:
    """Reads flags, then IXC_… variables, then the file named by --config or IXC_CONFIG."""
    flags = vars(parser(prog).parse_args(argv))
    config = flags.pop("config", None) or environ.get("IXC_CONFIG")
    values: dict[str, object] = {}
    limits: dict[str, object] = {}
    if config:
        values, limits = _from_file(Path(config))
    for target, cls in ((values, Settings), (limits, Limits)):
        for name, convert in _converters(cls).items():
            variable = f"IXC_{name}".upper()
            if variable in environ:
                target[name] = _converted(convert, environ[variable], variable)
            if name in flags:
                target[name] = flags[name]
    return Settings(**values, limits=Limits(**limits))  # type: ignore[arg-type]


def parser(prog: str) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog=prog,
        description="Serve a checkpoint over gRPC (ixc.v1).",
        epilog="Each flag is also a variable (--max-context: IXC_MAX_CONTEXT) and a key of the "
        "TOML file (max_context). Flags win over variables, variables over the file.",
        argument_default=argparse.SUPPRESS,
    )
    result.add_argument("--config", metavar="FILE", help="TOML file with any of these settings")
    limits = result.add_argument_group("limits")
    for group, cls in ((result, Settings), (limits, Limits)):
        converters, helps = _converters(cls), help_texts(cls)
        for item in dataclasses.fields(cls):
            if item.name not in converters:
                continue
            flag = f"--{item.name.replace('_', '-')}"
            text = helps[item.name]
            if "; default" not in text:  # which says in words what an empty one means
                text += f" (default: {_shown(item.default)})"
            text = text.replace("%", "%%")
            if converters[item.name] is _to_bool:
                group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
            else:
                group.add_argument(
                    flag, type=converters[item.name], metavar=_metavar(cls, item.name), help=text
                )
    return result


def help_texts(cls: type) -> dict[str, str]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: typing.get_args(hint)[1]
        for name, hint in hints.items()
        if typing.get_origin(hint) is Annotated
    }


def _from_file(path: Path) -> tuple[dict[str, object], dict[str, object]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {path} is not TOML: {error}") from error
    limits = document.pop("limits", {})
    if not isinstance(limits, dict):
        raise SettingsError(f"config file {path}: limits must be a table")
    result: list[dict[str, object]] = []
    for cls, table, where in ((Settings, document, ""), (Limits, limits, "limits.")):
        converters = _converters(cls)
        if unknown := sorted(table.keys() - converters.keys()):
            raise SettingsError(f"config file {path}: no such setting: {where}{unknown[0]}")
        result.append(
            {
                name: _converted(converters[name], _as_text(value), f"{path}: {where}{name}")
                for name, value in table.items()
            }
        )
    return result[0], result[1]


def _as_text(value: object) -> str:
    """TOML's types pass through the same converters as flags, so that the rules are one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _converted(convert: Callable[[str], object], text: str, where: str) -> object:
    try:
        return convert(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise SettingsError(f"{where}: {error}") from error


def _converters(cls: type) -> dict[str, Callable[[str], object]]:
    hints = typing.get_type_hints(cls)
    return {
        item.name: _converter(hints[item.name])
        for item in dataclasses.fields(cls)
        if item.name != "limits"
    }


def _converter(hint: Any) -> Callable[[str], object]:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _one_of(typing.get_args(hint))
    if origin is types.UnionType:  # only ever `X | None`
        return _converter(next(arg for arg in typing.get_args(hint) if arg is not types.NoneType))
    if origin is tuple:
        return _to_words
    if hint is bool:
        return _to_bool
    assert hint in {int, float, str, Path}, f"no converter for {hint}"
    return typing.cast("Callable[[str], object]", hint)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], object]:
    def convert(text: str) -> object:
        if text not in choices:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not one of {', '.join(filter(None, choices))}"
            )
        return text

    return convert


def _to_words(text: str) -> object:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _to_bool(text: str) -> object:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def _metavar(cls: type, name: str) -> str:
    hint = typing.get_type_hints(cls)[name]
    if typing.get_origin(hint) is Literal:
        return "|".join(filter(None, typing.get_args(hint)))
    names = {int: "N", float: "X", str: "TEXT"}
    return names.get(hint, "ADDRESSES" if name == "listen" else "FOLDER")


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(default)
    return "unset" if default in (None, "") else str(default)
