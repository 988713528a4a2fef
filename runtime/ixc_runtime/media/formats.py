"""Which format a file's first bytes announce, of the few that are taken.

The announcement decides which decoder sees the file and is never taken from a name or a header
of the caller's. Free of decoders, so the front end may sort files by it too.
"""

SNIFFED_BYTES = 12

# ISO media files that hold pictures, not clips: AVIF and HEIF.
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


def sniff_image_format(head: bytes) -> str | None:
    """PNG, JPEG, WEBP, GIF or BMP by the first `SNIFFED_BYTES`; None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    return None


def sniff_video_format(head: bytes) -> str | None:
    """MP4, MOV or WEBM by the first `SNIFFED_BYTES`; None for anything else.

    WEBM stands for its parent format Matroska (MKV) too: both begin alike.
    """
    if head[4:8] == b"ftyp" and head[8:12] not in _STILL_BRANDS:
        return "MOV" if head[8:12] == b"qt  " else "MP4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "WEBM"
    return None
