"""Encoded pictures for media workers: sound ones, and headers that promise too much."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image


def encoded(image_format: str, size: tuple[int, int] = (90, 60), **options: Any) -> bytes:
    image = Image.effect_noise(size, 90).convert("RGB")
    data = io.BytesIO()
    image.save(data, image_format, **options)
    return data.getvalue()


def file_of(folder: Path, data: bytes) -> Path:
    path = folder / f"{zlib.crc32(data):08x}.bin"
    path.write_bytes(data)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has next to no data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
