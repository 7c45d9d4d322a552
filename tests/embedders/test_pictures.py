"""The pixels that a model is given, against what each colour mode says they are, and why some files have none."""

import io
import struct
import threading
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from tasks.embedders.interface import RowError
from tasks.embedders.pictures import MAX_PIXELS, Size, cropped, decode, measure

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, 9, 4), np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def png(pixels: np.ndarray, depth: int, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of uint8 or big-endian uint16[h, w, n], chunk by chunk (W3C, "PNG", 3rd edition)."""
    height, width = pixels.shape[:2]
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(raw)), after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pixels(item: bytes) -> np.ndarray:
    """uint8[h, w, 3]"""
    image = decode(item)
    assert not isinstance(image, RowError), image
    assert image.mode == "RGB"
    return np.asarray(image)


def refused(data: bytes, **limits: int) -> tuple[str, str]:
    """The classes that ``measure`` and ``decode`` refuse it with; "" where they do not."""
    results = [measure(data, **limits), decode(data, **limits)]
    first, second = (result.kind if isinstance(result, RowError) else "" for result in results)
    return first, second


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is seen of a colour with so much alpha on white, to the nearest level."""
    opaque = alpha[..., None].astype(int)
    return ((2 * (colour.astype(int) * opaque + 255 * (255 - opaque)) + 255) // 510).astype(np.uint8)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


def test_colours_are_as_they_are() -> None:
    """RGB and grey of 8 bits, black and white, and a palette."""
    rgb = PIXELS[..., :3]
    assert (pixels(encoded(Image.fromarray(rgb), "PNG")) == rgb).all()
    assert (pixels(encoded(Image.fromarray(rgb), "BMP")) == rgb).all()
    assert (pixels(encoded(Image.fromarray(rgb), "TIFF")) == rgb).all()
    assert (pixels(encoded(Image.fromarray(rgb), "WEBP", lossless=True)) == rgb).all()
    assert (pixels(encoded(Image.fromarray(rgb[..., 0]), "PNG")) == grey(rgb[..., 0])).all()
    bits = rgb[..., 0] > 127
    assert (pixels(encoded(Image.fromarray(bits), "PNG")) == grey(bits * np.uint8(255))).all()
    palette = Image.fromarray(PIXELS[..., 0] % 7).convert("L")
    palette.putpalette(bytes(range(21)))
    assert palette.mode == "P"
    expected = np.arange(21, dtype=np.uint8).reshape(7, 3)[PIXELS[..., 0] % 7]
    assert (pixels(encoded(palette, "PNG")) == expected).all()
    assert (pixels(encoded(palette, "GIF")) == expected).all()


def test_a_jpeg_is_decoded_exactly() -> None:
    """At its own size, as Pillow decodes it, and not at half of it, which is quicker."""
    smooth = np.add.outer(np.arange(96), np.arange(128))[..., None] * np.array([1, 2, 3]) % 256
    data = encoded(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95)
    assert (pixels(data) == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_transparency_is_on_white() -> None:
    """Of colours, of grey, of a palette with alpha, and of one colour that stands for it."""
    rgba, alpha = PIXELS, PIXELS[..., 3]
    assert (pixels(encoded(Image.fromarray(rgba), "PNG")) == on_white(rgba[..., :3], alpha)).all()
    assert (
        pixels(encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)) == on_white(rgba[..., :3], alpha)
    ).all()
    assert (pixels(encoded(Image.fromarray(rgba[..., 2:]), "PNG")) == on_white(grey(rgba[..., 2]), alpha)).all()

    index, entries = PIXELS[..., 0] % 5, PIXELS.reshape(-1, 4)[:5]
    palette = chunk(b"PLTE", entries[:, :3].tobytes()) + chunk(b"tRNS", entries[:, 3].tobytes())
    data = png(index[..., None], 8, 3, before=palette)
    assert Image.open(io.BytesIO(data)).mode == "P"
    assert (pixels(data) == on_white(entries[index][..., :3], entries[index][..., 3])).all()

    key = PIXELS[2, 3, :3]
    data = png(PIXELS[..., :3], 8, 2, before=chunk(b"tRNS", struct.pack(">HHH", *map(int, key))))
    expected = PIXELS[..., :3].copy()
    expected[(expected == key).all(axis=2)] = 255
    assert (pixels(data) == expected).all()
    assert (pixels(data)[2, 3] == 255).all()


def test_sixteen_bits_are_scaled_by_a_257th() -> None:
    """65535 is white and 257 is 1, in either order of bytes; a transparent level is white. Of 16-bit colour Pillow reads the upper
    byte, which is at most one level away."""
    levels = np.concatenate([RANDOM.integers(0, 65536, 48), [0, 128, 129, 257, 65406, 65535]]).reshape(6, 9)
    expected = grey(np.round(levels / 257).astype(np.uint8))
    assert (pixels(png(levels[..., None].astype(">u2"), 16, 0)) == expected).all()
    for order in "<>":
        data = encoded(Image.fromarray(levels.astype("<u2")), "TIFF") if order == "<" else tiff_big(levels)
        assert (pixels(data) == expected).all(), order
    head, maximum = b"P5 9 6 65535\n", levels.astype(">u2").tobytes()
    assert (pixels(head + maximum) == expected).all()

    transparent = png(levels[..., None].astype(">u2"), 16, 0, before=chunk(b"tRNS", struct.pack(">H", levels[1, 2])))
    expected = np.where((levels == levels[1, 2])[..., None], 255, expected)
    assert (pixels(transparent) == expected).all()

    colour = RANDOM.integers(0, 65536, (6, 9, 3))
    assert np.abs(pixels(png(colour.astype(">u2"), 16, 2)).astype(int) - np.round(colour / 257)).max() <= 1
    opaque = RANDOM.integers(0, 65536, (6, 9, 4))
    small = np.round(opaque / 257).astype(np.uint8)
    seen = pixels(png(opaque.astype(">u2"), 16, 6)).astype(int)
    assert np.abs(seen - on_white(small[..., :3], small[..., 3])).max() <= 3


def tiff_big(levels: np.ndarray) -> bytes:
    """An uncompressed TIFF of 16-bit grey, the upper byte first (TIFF 6.0, sections 2 and 4)."""
    height, width = levels.shape
    tags = [
        (256, width),
        (257, height),
        (258, 16),
        (259, 1),
        (262, 1),
        (273, 0),
        (277, 1),
        (278, height),
        (279, 2 * levels.size),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, start if tag == 273 else value, 0) for tag, value in tags)
    directory = struct.pack(">H", len(tags)) + entries + b"\0\0\0\0"
    return b"MM\0*" + struct.pack(">I", 8) + directory + levels.astype(">u2").tobytes()


def test_cmyk_is_what_its_inks_leave_of_white() -> None:
    """Each of three inks takes its share of what black leaves; TIFF as it is, JPEG as Adobe writes it, inverted."""
    inks = PIXELS.astype(int)
    left = 255 - inks[..., 3:]
    expected = left - (2 * inks[..., :3] * left + 255) // 510
    image = Image.frombytes("CMYK", (9, 6), PIXELS.tobytes())
    assert (pixels(encoded(image, "TIFF")) == expected).all()
    flat = Image.new("CMYK", (16, 16), (10, 200, 30, 40))
    seen = pixels(encoded(flat, "JPEG", quality=100)).astype(int)
    assert np.abs(seen - [205, 46, 190]).max() <= 3


def test_of_an_animation_the_first_frame_is_taken() -> None:
    """GIF, PNG, WebP and TIFF."""
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for kind, options in {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}.items():
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
        assert (pixels(data) == [255, 0, 0]).all(), kind


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""Exif 2.32, tag 274: 6 says that the first row is the right side and the first column the top, and so on."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "PNG late", "PNG 16"])
def test_a_picture_is_turned_as_its_exif_says(kind: str, orientation: int) -> None:
    """And measured so, in every format that can say it; a PNG may say it after its pixels; 16-bit grey turns as well."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = PIXELS[..., :3]
    if kind == "JPEG":
        stored = np.repeat(np.repeat(stored, 16, axis=0), 16, axis=1)
        data = encoded(Image.fromarray(stored), kind, quality=100, subsampling=0, exif=exif)
        stored = np.asarray(Image.open(io.BytesIO(data)))
    elif kind == "PNG late":
        data = png(stored, 8, 2, after=chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    elif kind == "PNG 16":
        data = png(
            stored[..., :1].astype(">u2") * 257, 16, 0, before=chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        )
        stored = grey(stored[..., 0])
    else:
        data = encoded(Image.fromarray(stored), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = TURNED[orientation](stored)
    assert (pixels(data) == expected).all()
    assert measure(data) == Size(expected.shape[1], expected.shape[0])
    assert (pixels(cropped(data, (1, 2, 4, 5))) == expected[2:5, 1:4]).all()


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    """Damage to what is said of a picture is none to the picture."""
    data = encoded(Image.fromarray(PIXELS[..., :3]), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff damaged")
    assert (pixels(data) == PIXELS[..., :3]).all()
    assert measure(data) == Size(9, 6)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 12)] * 4))
def test_a_crop_is_a_part_of_the_picture_or_refused(box: tuple[int, int, int, int]) -> None:
    """Of every box that lies within the picture exactly its pixels come out."""
    left, top, right, bottom = box
    result = decode(cropped(ENCODED, box))
    if left < right <= 9 and top < bottom <= 6:
        assert not isinstance(result, RowError)
        assert (np.asarray(result) == PIXELS[top:bottom, left:right, :3]).all()
    else:
        assert isinstance(result, RowError)
        assert result.kind == "outside"
        assert "which is 9×6" in result.message


ENCODED = encoded(Image.fromarray(PIXELS[..., :3]), "PNG")


def test_equal_parts_of_equal_files_are_equal_items() -> None:
    """And others are not: the bytes alone say what is meant."""
    assert cropped(ENCODED, (1, 2, 3, 4)) == cropped(bytes(bytearray(ENCODED)), (1, 2, 3, 4))
    assert len({ENCODED, cropped(ENCODED, (1, 2, 3, 4)), cropped(ENCODED, (1, 2, 3, 5))}) == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF"])
def test_a_picture_that_is_cut_off_is_truncated(kind: str) -> None:
    """Wherever it is cut, if its beginning says what it was; never a grey rest."""
    data = encoded(Image.fromarray(RANDOM.integers(0, 256, (40, 60, 3), np.uint8)), kind)
    for kept in (32, 100, len(data) // 2, len(data) - 40):
        first, second = refused(data[:kept])
        assert first in ("", "truncated")
        assert second == "truncated", kept


def test_what_is_no_picture_is_told_by_its_class() -> None:
    """A text file with the name of one, a page, nothing at all, a format that runs programs, a mode without white, HEIF."""
    text = b"this is a text file, whatever its name says\n" * 20
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n"
    floats = encoded(Image.fromarray(np.zeros((6, 9), np.float32)), "TIFF")
    heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    assert refused(text) == ("not_an_image", "not_an_image")
    assert refused(b"<!doctype html><title>gone</title>") == ("not_an_image", "not_an_image")
    assert refused(b"") == ("empty", "empty")
    assert refused(postscript) == ("not_an_image", "not_an_image")
    assert refused(floats) == ("unsupported", "unsupported")
    assert refused(heif) == ("unsupported", "unsupported")
    assert refused(cropped(text, (0, 0, 1, 1)))[1] == "not_an_image"


def test_a_bomb_is_refused_by_its_header() -> None:
    """Nothing of it is decoded: neither of more pixels than are allowed, nor of more than Pillow opens."""
    small, huge = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
        for side in (10_000, 60_000)
    )
    assert refused(small, max_pixels=MAX_PIXELS) == ("too_many_pixels", "too_many_pixels")
    assert refused(huge) == ("too_many_pixels", "too_many_pixels")
    assert refused(ENCODED, max_pixels=53) == ("too_many_pixels", "too_many_pixels")
    assert refused(ENCODED, max_pixels=54) == ("", "")


@pytest.mark.parametrize(("width", "kind"), [((4, 1, 1 << 15), "too_many_pixels"), ((2, 4, 0x616161), "truncated")])
def test_a_small_tiff_of_huge_tiles_is_refused(width: tuple[int, int, int], kind: str) -> None:
    """It would be decoded by the tile, which takes a gigabyte here; also where its width is said in letters."""
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 0, 323: 1 << 15, 324: 200, 325: 1000}
    entries = b"".join(
        struct.pack("<HHII", tag, *(width if tag == 322 else (4, 1, value))) for tag, value in tags.items()
    )
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(2000)
    assert refused(data) == (kind, kind)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20), (20, 20_000)])
def test_pictures_of_any_shape_are_decoded(size: tuple[int, int]) -> None:
    """One pixel, and twenty thousand by twenty."""
    data = encoded(Image.new("RGB", size, (1, 2, 3)), "PNG")
    assert measure(data) == Size(*size)
    assert pixels(data).shape == (size[1], size[0], 3)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_refused_or_decoded_and_never_raised(data: st.DataObject) -> None:
    """Whatever bytes are changed, whatever they were."""
    kind = data.draw(st.sampled_from(sorted(WHOLE)))
    bytes_ = bytearray(WHOLE[kind])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(bytes_) - 1), st.integers(0, 255)), max_size=6)):
        bytes_[at] = value
    for result in (measure(bytes(bytes_), 1_000_000), decode(bytes(bytes_), 1_000_000)):
        assert not isinstance(result, RowError) or (result.kind and result.message)


WHOLE = {
    kind: encoded(Image.fromarray(PIXELS[..., :3]), kind)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
}


def test_threads_decode_alike() -> None:
    """What one thread decodes does not depend on what the others do."""
    items: Sequence[bytes] = [WHOLE["JPEG"], ENCODED, WHOLE["GIF"], b"no picture"] * 10
    expected = [decode(item) for item in items]
    results: list[list[object]] = []
    threads = [threading.Thread(target=lambda: results.append([decode(item) for item in items])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
