"""A checkpoint of random weights in the official names, shapes and sizes of the 7B model.

    python -m tests.bench.full_size_checkpoint FOLDER [--device cuda]

22 GB in bfloat16: decoder, tower, partial low-rank matrices, web and write adapters, and a
tokenizer whose every id has a text. Values keep activations of ordinary size; the same seed gives
the same bytes on one kind of device. Smaller sizes by --layers, --hidden and so on.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from tests.fakes.tiny_tokenizer import trained_sentencepiece

TOWER = "vit.vision_tower.vision_model."
NUM_SHARDS = 8
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

Shapes = Sequence[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The published model's; `rank` is that of all low-rank sets but web, which has twice it."""

    layers: int = 32
    hidden: int = 4096
    intermediate: int = 14336
    heads: int = 32
    kv_heads: int = 8
    vocab: int = 92544
    rank: int = 256
    tower_layers: int = 24
    tower_hidden: int = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    add_sizes(parser)
    args = parser.parse_args()
    began = time.perf_counter()
    num_bytes = write_checkpoint(args.folder, sizes_of(args), device=args.device, seed=args.seed)
    seconds = time.perf_counter() - began
    print(
        f"{num_bytes / 2**30:.1f} GiB in {seconds:.1f} s ({num_bytes / 1e9 / seconds:.2f} GB/s) "
        f"in {args.folder}"
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    for field in fields(Sizes):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=field.default)


def sizes_of(args: argparse.Namespace) -> Sizes:
    return Sizes(**{field.name: getattr(args, field.name) for field in fields(Sizes)})


def write_checkpoint(
    folder: Path, sizes: Sizes, *, device: str, seed: int = 0, threads: int = 8
) -> int:
    """Write all of it anew and return the bytes of the weights. A thread makes one file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(sizes), indent=1))
    (folder / "tokenizer.model").write_bytes(tokenizer_model(sizes.vocab))
    shards = _shards(list(shapes_of(sizes)))
    # A tensor's values depend on its name's place, not on the thread or on the file.
    seeds = {name: seed + place for place, (name, _) in enumerate(shapes_of(sizes))}
    with ThreadPoolExecutor(threads) as pool:
        written = [
            pool.submit(_write_shard, folder / file, shapes, seeds, device)
            for file, shapes in shards.items()
        ]
        total = sum(each.result() for each in written)
    weight_map = {name: file for file, shapes in shards.items() for name, _ in shapes}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def config_of(sizes: Sizes) -> dict[str, object]:
    return {
        "architectures": ["InternLMXComposer2ForCausalLM"],
        "model_type": "internlm2",
        "torch_dtype": "bfloat16",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "hidden_act": "silu",
        "bias": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "max_position_embeddings": 24576,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }


def shapes_of(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the official model, in the order of its layers."""
    hidden, inner, width = sizes.hidden, sizes.intermediate, sizes.tower_hidden
    packed = (sizes.heads + 2 * sizes.kv_heads) * (hidden // sizes.heads)
    yield "model.tok_embeddings.weight", (sizes.vocab, hidden)
    ranks = {"Plora": sizes.rank, "lora_sft": sizes.rank, "lora_dpo": sizes.rank}
    ranks["lora_web"] = 2 * sizes.rank
    for layer in range(sizes.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.attention_norm.weight", (hidden,)
        yield f"{prefix}.ffn_norm.weight", (hidden,)
        for name, rows, columns in (
            ("attention.wqkv", packed, hidden),
            ("attention.wo", hidden, hidden),
            ("feed_forward.w1", inner, hidden),
            ("feed_forward.w3", inner, hidden),
            ("feed_forward.w2", hidden, inner),
        ):
            yield f"{prefix}.{name}.weight", (rows, columns)
            for low_rank, rank in ranks.items():
                yield f"{prefix}.{name}.{low_rank}_A.weight", (rank, columns)
                yield f"{prefix}.{name}.{low_rank}_B.weight", (rows, rank)
    yield "model.norm.weight", (hidden,)
    yield "output.weight", (sizes.vocab, hidden)
    yield f"{TOWER}embeddings.class_embedding", (width,)
    yield f"{TOWER}embeddings.patch_embedding.weight", (width, 3, 14, 14)
    yield f"{TOWER}embeddings.position_embedding.weight", (1601, width)
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in range(sizes.tower_layers):
        inside = f"encoder.layers.{layer}"
        norms += [f"{inside}.layer_norm1", f"{inside}.layer_norm2"]
        projections = [(f"self_attn.{side}_proj", width, width) for side in ("q", "k", "v", "out")]
        mlp = [("mlp.fc1", 4 * width, width), ("mlp.fc2", width, 4 * width)]
        for name, rows, columns in projections + mlp:
            yield f"{TOWER}{inside}.{name}.weight", (rows, columns)
            yield f"{TOWER}{inside}.{name}.bias", (rows,)
    for norm in norms:
        yield f"{TOWER}{norm}.weight", (width,)
        yield f"{TOWER}{norm}.bias", (width,)
    yield "vision_proj.0.weight", (hidden, 4 * width)
    yield "vision_proj.0.bias", (hidden,)
    yield "vision_proj.2.weight", (hidden, hidden)
    yield "vision_proj.2.bias", (hidden,)
    yield "plora_sub_GN", (1, 1, 1, 4 * width)
    yield "plora_glb_GN", (1, 1, 4 * width)


def random_tensor(name: str, shape: tuple[int, ...], device: str, seed: int) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    tensor = torch.randn(shape, device=device, dtype=torch.bfloat16, generator=generator)
    if "norm" in name and name.endswith("weight"):
        return tensor.mul_(0.05).add_(1).cpu()
    size = 0.02 if len(shape) == 1 or "embed" in name else shape[-1] ** -0.5
    return tensor.mul_(size * (0.1 if "_B." in name else 1)).cpu()


def tokenizer_model(vocab: int) -> bytes:
    """A small trained SentencePiece model, its vocabulary filled up with made-up words."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(trained_sentencepiece(min(vocab, 1000)))
    for number in range(len(model.pieces), vocab):
        letters = (_LETTERS[number // 26**place % 26] for place in range(4))
        # Never the best way to write anything, so text is cut as if they were not there.
        model.pieces.add(piece=f"\u2581qx{''.join(letters)}", score=-1e6)
    return model.SerializeToString()


def _shards(shapes: Shapes) -> Mapping[str, Shapes]:
    """Neighbours together, in files of about the same size."""
    total = sum(prod(shape) for _, shape in shapes)
    files: list[list[tuple[str, tuple[int, ...]]]] = [[] for _ in range(NUM_SHARDS)]
    done = 0
    for name, shape in shapes:
        files[min(done * NUM_SHARDS // total, NUM_SHARDS - 1)].append((name, shape))
        done += prod(shape)
    used = [held for held in files if held]
    return {
        f"model-{number:05}-of-{len(used):05}.safetensors": held
        for number, held in enumerate(used, start=1)
    }


def _write_shard(path: Path, shapes: Shapes, seeds: Mapping[str, int], device: str) -> int:
    """By hand rather than by `save_file`: one tensor at a time in memory, and threads side by side.

    A safetensors file is the length of its header, the header, and the tensors in its order.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes:
            tensor = random_tensor(name, shape, device, seeds[name])
            left = memoryview(tensor.flatten().view(torch.uint8).numpy())
            while left:
                left = left[stream.write(left) :]  # a write may take a part
    return end


if __name__ == "__main__":
    main()
