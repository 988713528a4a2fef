"""Figures of answers and media as one line for people."""

import ixc_client


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
