"""What a media worker does with one picture, called directly: no process, no pool."""

from pathlib import Path

import pytest
from PIL import Image

from ixc_runtime.media.jobs import ImageProbed, ImageRendered, Outcome, ProbeImage, RenderImage
from ixc_runtime.media.transform import transform_image
from ixc_runtime.media.worker import run_job
from ixc_runtime.media.worker_settings import MediaSettings
from tests.fakes.pictures import encoded, file_of, png_header


def render_here(path: Path) -> Outcome:
    output = path.with_suffix(".rgb")
    output.touch()
    job = RenderImage(path=str(path), hd_num=6, tile_size=56, output=str(output))
    return run_job(job, MediaSettings().worker_limits)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_each_format(tmp_path, image_format):
    """Size and format from the header, and the pixels that the transform makes of the picture."""
    path = file_of(tmp_path, encoded(image_format))
    probed = run_job(ProbeImage(path=str(path)), MediaSettings().worker_limits)
    assert probed == ImageProbed(width=90, height=60, format=image_format)
    with Image.open(path) as image:
        expected = transform_image(image, hd_num=6, tile_size=56)
    assert render_here(path) == ImageRendered(width=expected.width, height=expected.height)
    assert expected.tobytes() == path.with_suffix(".rgb").read_bytes()


def test_the_first_frame_of_an_animation(tmp_path):
    """Of a GIF that moves, the first picture."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    render_here(tmp_path / "a.gif")
    assert (tmp_path / "a.rgb").read_bytes()[:3] == b"\xff\0\0"


@pytest.mark.parametrize(
    "data",
    [b"hello", b"<svg/>", b"%PDF-1.7", b"II*\0....", b"\0\0\0 ftypavif", b"RIFF\0\0\0\0WAVEfmt "],
    ids=["text", "svg", "pdf", "tiff", "avif", "wav"],
)
def test_another_kind_of_file(tmp_path, data):
    """What is not one of the five formats is told by its first bytes."""
    refused = render_here(file_of(tmp_path, data))
    assert (refused.kind, refused.message) == (
        "unsupported",
        "the data is not a PNG, JPEG, WEBP, GIF or BMP picture",
    )


BROKEN = {
    "empty": b"",
    "a PNG signature alone": b"\x89PNG\r\n\x1a\n",
    "a JPEG that says PNG": b"\x89PNG\r\n\x1a\n" + b"\xff\xd8\xff\xe0" * 9,
    "half a PNG": encoded("PNG")[:2000],
    "half a JPEG": encoded("JPEG")[:1500],
    "half a WEBP": encoded("WEBP")[:900],
    "half a BMP": encoded("BMP")[:900],
    "no pixels": png_header(0, 5),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_picture(tmp_path, data):
    """Refused in our own words: no exception's text, no path, no address."""
    refused = render_here(file_of(tmp_path, data))
    assert refused.kind == "undecodable"
    assert refused.message in {
        "the picture has no bytes",
        "the picture's header is broken",
        "the picture's data is broken or cut off",
    }


@pytest.mark.parametrize("size", [(10_001, 10_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)])
def test_too_many_pixels(tmp_path, size):
    """A size beyond the limit is refused from the header, before anything is decoded."""
    path = file_of(tmp_path, png_header(*size))
    refused = run_job(ProbeImage(path=str(path)), MediaSettings().worker_limits)
    assert refused.message == "the picture has more than 100000000 pixels"
