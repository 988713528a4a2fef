"""Draws the engine's figures beside its peers', as an SVG for the README.

    python -m tests.bench.plot [--results FILE ...] [--output FILE]

A bar is the share of the best possible that is reached: what the bytes and operations of a step
allow at the bandwidth and arithmetic measured in the engine's own run. The peers were measured
once, on another H200, so their bars are as exact as two such machines are alike.

SVG by hand: a handful of rectangles need no plotting library, and colours that follow the reader's
light or dark mode are a few lines of CSS.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tests.bench.record import RESULTS

OURS = "ixc"
# Tokens a second on one H200 (143,771 MiB, driver 580), 22 November 2026: bfloat16, random weights
# of the same shapes, prompts of 512 random tokens; decoding is what 128 further tokens took.
PEERS: Mapping[str, Mapping[str, float]] = {
    "vLLM 0.25.0": {
        "decode bf16 batch=1 context=512": 208,
        "decode bf16 batch=32 context=512": 5_564,
        "decode bf16 batch=128 context=512": 15_055,
        "decode bf16 batch=256 context=512": 19_008,
        "prefill bf16 prompts=256 tokens=512": 42_800,
    },
    "plain torch in a CUDA graph, no scheduler, no sampling": {
        "decode bf16 batch=1 context=512": 173,
        "decode bf16 batch=32 context=512": 4_821,
        "decode bf16 batch=128 context=512": 14_441,
        "decode bf16 batch=256 context=512": 19_903,
    },
}
LABELS = {
    "decode bf16 batch=1 context=512": "decode, 1 sequence",
    "decode bf16 batch=32 context=512": "decode, 32 sequences",
    "decode bf16 batch=128 context=512": "decode, 128 sequences",
    "decode bf16 batch=256 context=512": "decode, 256 sequences",
    "prefill bf16 prompts=256 tokens=512": "prefill, 256 prompts",
}

WIDTH, LEFT, RIGHT, TOP = 760, 170, 84, 62
BAR, GAP, BETWEEN = 14, 3, 16
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.quiet { fill: #59636e }
.grid { stroke: #d1d9e0 }
.series0 { fill: #0969da } .series1 { fill: #8c959f } .series2 { fill: #c8d1da }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #3d444d }
  .series0 { fill: #4493f8 } .series1 { fill: #767e88 } .series2 { fill: #484f58 }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    series: int
    value: float  # tokens a second
    share: float  # of the best possible


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    measured = sorted(RESULTS.glob("engine_*.json"))
    parser.add_argument("--results", type=Path, nargs="+", default=measured)
    parser.add_argument("--output", type=Path, default=RESULTS / "engine_speed.svg")
    args = parser.parse_args(arguments)
    rows = [row for path in args.results for row in json.loads(path.read_text())["rows"]]
    args.output.write_text(draw(rows), encoding="utf-8")
    print(f"written to {args.output}")


def groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Bar]]:
    """The bars of each cell that was measured, in the order of `LABELS`."""
    by_name = {row["name"]: row for row in reversed(rows)}  # the first of several counts
    found = {}
    for name in LABELS:
        row = by_name.get(name)
        if row is None or row["value"] is None or not row["floor"]:
            continue
        values = [row["value"], *(peer.get(name) for peer in PEERS.values())]
        found[name] = [
            Bar(series=series, value=value, share=value / row["floor"])
            for series, value in enumerate(values)
            if value is not None
        ]
    return found


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    drawn = groups(rows)
    if not drawn:
        raise ValueError("none of the cells that are drawn has been measured")
    lines: list[str] = []
    y = TOP
    for name, bars in drawn.items():
        height = len(bars) * (BAR + GAP)
        lines.append(_text(LEFT - 10, y + height / 2 + 3, LABELS[name], anchor="end"))
        for bar in bars:
            lines += _bar(bar, y)
            y += BAR + GAP
        y += BETWEEN
    height = y + 20
    title = (
        "Tokens a second, 7B model in bfloat16, 512 tokens of context, one H200; "
        "bars: share of the best possible"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-label="{title}">',
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            _text(10, 20, title),
            *_legend(),
            *_grid(y - BETWEEN + GAP),
            *lines,
            "</svg>",
            "",
        ]
    )


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(share, 1.0)


def _bar(bar: Bar, y: float) -> Iterator[str]:
    yield (
        f'<rect class="series{bar.series}" x="{LEFT}" y="{y:g}" '
        f'width="{_x(bar.share) - LEFT:.1f}" height="{BAR}"/>'
    )
    emphasis = "" if bar.series == 0 else "quiet"
    yield _text(_x(bar.share) + 6, y + BAR - 3, f"{bar.value:,.0f}", style=emphasis)


def _legend() -> Iterator[str]:
    x = 10.0
    for series, name in enumerate((OURS, *PEERS)):
        yield f'<rect class="series{series}" x="{x:g}" y="33" width="12" height="12"/>'
        yield _text(x + 18, 43, name, style="quiet")
        x += 44 + 6.2 * len(name)


def _grid(bottom: float) -> Iterator[str]:
    for percent in (0, 25, 50, 75, 100):
        x = _x(percent / 100)
        yield f'<line class="grid" x1="{x:g}" x2="{x:g}" y1="{TOP - 6}" y2="{bottom:g}"/>'
        yield _text(x, bottom + 15, f"{percent} %", anchor="middle", style="quiet")


def _text(x: float, y: float, text: str, *, anchor: str = "start", style: str = "") -> str:
    name = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{name}>{escape(text)}</text>'


if __name__ == "__main__":
    main()
