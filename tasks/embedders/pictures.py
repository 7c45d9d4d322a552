"""The bytes of a picture, and the pixels that they stand for. Threads may call all of it; Pillow decodes without the interpreter's
lock.

An item is the file as it is, or has before it which part of it is meant: ``b"vecferry crop LEFT TOP RIGHT BOTTOM\\n"``, in pixels
of the picture after EXIF rotation. So equal bytes are equal pictures, and who keeps or hashes an item need not know more.

Pixels are RGB: the first frame, turned as its EXIF orientation says, transparency on white, 16-bit grey scaled by 1/257 (Pillow's
own conversion cuts it off at 255; of 16-bit colour it reads the upper byte, which is at most one level away), CMYK without a
profile. Nothing is decoded at a lower resolution.
"""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from tasks.base.words import counted
from tasks.embedders.interface import RowError

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels after EXIF rotation; right and bottom are the first that are left out."""
MAX_PIXELS = 89_478_485
"""Pillow's own limit, a quarter of a GiB as RGB. It opens nothing of more than twice as many, whatever a caller allows; so what a
content has allowed is decoded."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
"""What is opened. Others run programs (EPS), or are no pictures that people keep."""
_CROP = re.compile(rb"vecferry crop (\d{1,9}) (\d{1,9}) (\d{1,9}) (\d{1,9})\n")
_BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF....WEBP|II\*\0|MM\0\*|\0\0\0\x0cjP  |\xff\x4f\xff\x51|....ftypavi[fs]", re.S
)
_HEIF = re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.S)
_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""CIPA DC-008 (Exif 2.32), tag 274: what makes the first row and column the top and left ones."""
_LATE = re.compile(rb"eXIf|[itz][TX][TX]t")
"""Chunks of a PNG that may stand after its pixels and say how it is turned."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged EXIF and the like: judged by what comes out


@dataclass(frozen=True)
class Size:
    """Of a picture as it is seen, after EXIF rotation, in pixels."""

    width: int
    height: int


def cropped(data: bytes, box: Box) -> bytes:
    """The item that stands for a part of a picture."""
    return b"vecferry crop %d %d %d %d\n" % box + data


def measure(item: bytes, max_pixels: int = MAX_PIXELS) -> Size | RowError:
    """The size of the picture, or the part of it, that the item stands for, by its header; or why there is none: ``empty``,
    ``not_an_image``, ``unsupported``, ``truncated`` or ``too_many_pixels``. A picture that is cut off behind its header is measured all
    the same."""
    if crop := _CROP.match(item):
        left, top, right, bottom = map(int, crop.groups())
        return Size(right - left, bottom - top)
    image = _opened(item, max_pixels)
    if isinstance(image, RowError):
        return image
    width, height = image.size
    try:
        if image.format == "PNG" and "exif" not in image.info and not _LATE.search(item):
            return Size(width, height)  # asked for its EXIF, it would be decoded
        turned = image.format != "TIFF" and _orientation(image) >= 5  # a TIFF has turned its size itself
    except Exception as error:  # noqa: BLE001  what Pillow raises for damaged data is of many classes
        return _damaged(error)
    return Size(height, width) if turned else Size(width, height)


def decode(item: bytes, max_pixels: int = 2 * MAX_PIXELS) -> Image.Image | RowError:
    """The picture or the part of it that the item stands for, in mode RGB, or why there is none: as ``measure``, or ``outside``
    where the part is not within the picture."""
    crop = _CROP.match(item)
    image = _opened(item[crop.end() :] if crop else item, max_pixels)
    if isinstance(image, RowError):
        return image
    try:
        image.load()
        turn = _TURNS.get(_orientation(image))
        if turn is not None:
            image = image.transpose(turn)
        if crop:
            left, top, right, bottom = (int(edge) for edge in crop.groups())
            if not (left < right <= image.width and top < bottom <= image.height):
                return RowError("outside", f"the crop is not within its picture, which is {image.width}×{image.height}")
            image = image.crop((left, top, right, bottom))
        return _rgb(image)
    except Exception as error:  # noqa: BLE001  as above
        return _damaged(error)


def _opened(data: bytes, max_pixels: int) -> Image.Image | RowError:
    if not data:
        return RowError("empty", "the file has no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        return RowError(
            "too_many_pixels",
            f"the picture has more than {counted(2 * MAX_PIXELS, 'pixel')}, the most that Pillow opens",
        )
    except Exception as error:  # noqa: BLE001  as above
        if _HEIF.match(data):
            return RowError("unsupported", "the picture is HEIF (HEIC), which Pillow cannot read: convert it to JPEG")
        if _BEGINNINGS.match(data):
            return _damaged(error)
        return RowError("not_an_image", f"the file is not a picture that Pillow can read; it begins with {data[:16]!r}")
    width, height = image.size
    if width < 1 or height < 1:
        return RowError("not_an_image", f"the picture is {width}×{height} and so has no pixels")
    if width * height > max_pixels:
        return RowError(
            "too_many_pixels", f"the picture is {width}×{height}, which is more than {counted(max_pixels, 'pixel')}"
        )
    try:  # a TIFF is decoded by whole tiles, however small it is itself
        tags = getattr(image, "tag_v2", {})
        tile = int(tags.get(322, 0)) * int(tags.get(323, 0))
    except (TypeError, ValueError) as error:
        return _damaged(error)
    if tile > max_pixels:
        return RowError("too_many_pixels", f"the picture's tiles are larger than {counted(max_pixels, 'pixel')}")
    if image.mode not in _EIGHT | _SIXTEEN or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        return RowError("unsupported", f"the picture's mode is {image.mode}: nothing says which of its values is white")
    return image


def _damaged(error: Exception) -> RowError:
    if isinstance(error, MemoryError):
        return RowError("too_many_pixels", "decoding the picture takes more memory than there is")
    words = "it ends within its header" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
    return RowError("truncated", f"the picture is cut off or damaged: {' '.join(words.split())[:200]}")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001  EXIF that cannot be read turns nothing
        return 1
    return value if isinstance(value, int) else 1


_SIXTEEN = {"I;16", "I;16B", "I;16L", "I;16N", "I"}
_LEVELS = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)
"""Of 8 bits, nearest to those of 16."""
_EIGHT = {"1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


def _rgb(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode in _SIXTEEN:
        grey = np.asarray(image)
        levels = _LEVELS[np.clip(grey, 0, 65535) if image.mode == "I" else grey]
        if isinstance(key, int):
            levels[grey == key] = 255
        return Image.fromarray(levels).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")
