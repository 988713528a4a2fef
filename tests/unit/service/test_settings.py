"""Settings: one set of knobs, three ways to turn them, and clear words when they are wrong."""

import dataclasses
from pathlib import Path

import pytest

from ixc.v1 import model_pb2
from ixc_service.limits import Limits
from ixc_service.settings import Settings, SettingsError, help_texts, load, parser


def test_a_flag_wins_over_a_variable_over_the_file(tmp_path: Path) -> None:
    """Each layer shows through where the ones above say nothing."""
    file = tmp_path / "ixc.toml"
    file.write_text(
        'max_context = 1\nmax_batch = 1\nthreads = 1\nlisten = ["unix:/a", "unix:/b"]\n'
        "prefix_cache = false\n[limits]\nmax_images = 1\nmax_labels = 1\n"
    )
    environ = {"IXC_MAX_BATCH": "2", "IXC_THREADS": "2", "IXC_MAX_LABELS": "2"}
    settings = load(["--config", str(file), "--threads", "3"], environ)
    assert (settings.max_context, settings.max_batch, settings.threads) == (1, 2, 3)
    assert settings.listen == ("unix:/a", "unix:/b")
    assert not settings.prefix_cache
    assert (settings.limits.max_images, settings.limits.max_labels) == (1, 2)
    assert load([], {"IXC_CONFIG": str(file)}).max_context == 1


def test_every_field_has_help_and_a_flag() -> None:
    """Nothing can be set that is not explained."""
    text = parser("ixc serve").format_help()
    for cls in (Settings, Limits):
        for item in dataclasses.fields(cls):
            if item.name != "limits":
                assert f"--{item.name.replace('_', '-')}" in text
                assert help_texts(cls)[item.name]


def test_limits_are_the_contracts() -> None:
    """Every limit is told by GetServerInfo, under the same name."""
    names = {item.name.removesuffix("_seconds") for item in dataclasses.fields(Limits)}
    ours = set(model_pb2.Limits.DESCRIPTOR.fields_by_name)
    of_the_model = {"context_limit", "max_queued_generations", "max_error_details_bytes"}
    assert names == ours - of_the_model


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--listen", "0.0.0.0:50051"], "plaintext"),
        (["--listen", "[::]:50051"], "plaintext"),
        (["--listen", "nowhere"], "neither HOST:PORT"),
        (["--listen", "localhost:99999"], "neither HOST:PORT"),
        (["--listen", "unix:"], "needs a path"),
        (["--listen", ""], "empty"),
        (["--model-name", "My Model"], "model_name is 'My Model'"),
        (["--max-context=-1"], "negative"),
        (["--max-queue-wait-seconds", "nan"], "positive"),
        (["--drain-grace-seconds", "inf"], "finite"),
        (["--max-images", "0"], "positive"),
        (["--config", "/nowhere.toml"], "No such file"),
    ],
)
def test_settings_that_make_no_sense(argv: list[str], words: str) -> None:
    """The message names the setting and what is wrong with it."""
    with pytest.raises(SettingsError, match=words):
        load(argv, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_kontext = 1", "no such setting: max_kontext"),
        ("[limits]\nmax_dogs = 1", "no such setting: limits.max_dogs"),
        ("limits = 3", "must be a table"),
        ("max_context = 'many'", "max_context"),
        ("device = 'abacus'", "abacus"),
        ("not toml", "is not TOML"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    """Unknown keys are refused: a misspelt limit must not pass for an applied one."""
    file = tmp_path / "ixc.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        load(["--config", str(file)], {})


def test_a_variable_that_makes_no_sense() -> None:
    """Named as it is spelt in the environment."""
    with pytest.raises(SettingsError, match="IXC_MAX_CONTEXT"):
        load([], {"IXC_MAX_CONTEXT": "much"})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:1", "[::1]:50051", "unix:/a.sock"])
def test_addresses_of_this_machine(address: str) -> None:
    """Loopback and sockets need no permission."""
    assert load(["--listen", address], {}).listen == (address,)


def test_plaintext_beyond_the_machine_can_be_asked_for() -> None:
    """By name only."""
    assert load(["--listen", "0.0.0.0:1", "--insecure-listen"], {}).insecure_listen


def test_where_data_lies() -> None:
    """What was said, else the XDG folder, else the home's."""
    assert Settings(data_dir=Path("/d")).resolved_data_dir({}) == Path("/d")
    assert Settings().resolved_data_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/ixc")
    assert Settings().resolved_data_dir({}) == Path.home() / ".local/state/ixc"
