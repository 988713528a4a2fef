"""Figures of answers, media and new models as one line for people."""

from typing import Protocol

import ixc_client


class Agreement(Protocol):
    """As the contract tells it, and as a job does."""

    @property
    def relative_difference(self) -> float: ...
    @property
    def top1_agreement(self) -> float: ...


class Drift(Protocol):
    @property
    def perplexity_ratio(self) -> float: ...
    @property
    def top1_agreement(self) -> float: ...


def agreement_texts(text: Agreement, image: Agreement | None) -> list[str]:
    """Of a merged model with its source."""
    return [
        f"{on} {part.relative_difference:.1e} off, top-1 {part.top1_agreement:.2%}"
        for on, part in (("text", text), ("pictures", image))
        if part is not None
    ]


def drift_texts(text: Drift, image: Drift | None) -> list[str]:
    """Of a rounded model from its source."""
    return [
        f"{on} perplexity ×{part.perplexity_ratio:.3f}, top-1 {part.top1_agreement:.1%}"
        for on, part in (("text", text), ("pictures", image))
        if part is not None
    ]


def figures(answer: ixc_client.Answer) -> str:
    """What was used, how fast, and why it ended."""
    usage, timings = answer.usage, answer.timings
    parts = [f"{usage.prompt_tokens} prompt tokens"]
    if usage.image_tokens:
        parts.append(f"{usage.image_tokens} of pictures")
    if usage.video_tokens:
        parts.append(f"{usage.video_tokens} of clips")
    if usage.cached_tokens:
        parts.append(f"{usage.cached_tokens} cached")
    steps = usage.output_tokens - 1  # decoding is timed from the first token to the last
    speed = f" at {steps / timings.decode:.1f}/s" if steps > 0 and timings.decode > 0 else ""
    parts.append(f"{usage.output_tokens} output tokens{speed}")
    if timings.first_token > 0:
        parts.append(f"first after {timings.first_token:.2f} s")
    parts.append(answer.finish_reason.value)
    return " · ".join(parts)


def media_figures(media: ixc_client.Media) -> str:
    """What was found in it, and what it costs."""
    parts = [f"{media.size_bytes:,} bytes", media.mime_type]
    if media.image is not None:
        image = media.image
        parts += [f"{image.width}×{image.height} pixels", f"{image.tokens} tokens"]
    if media.video is not None:
        video = media.video
        parts += [
            f"{video.width}×{video.height} pixels",
            f"{video.duration:.1f} s",
            f"{video.shown_frames} of {video.frames} frames shown",
            f"{video.tokens} tokens",
        ]
    return " · ".join(parts)
