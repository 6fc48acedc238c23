"""Files that are not quite whole, of pictures that are: and where the boundary lies."""

import zlib

import numpy as np
import pytest
from helpers.images import PHOTO, PROFILES, SCENE, chunk, decoded, encoded, profile, squeezed
from PIL import Image, PngImagePlugin

from jaxclust.data.decode import Unusable

JPEGS = {
    "baseline": {},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "restarts, many": {"restart_marker_blocks": 2},
    "restarts, progressive": {"restart_marker_rows": 1, "progressive": True},
}
ROUGH = Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)).resize((960, 720))


@pytest.mark.parametrize("how", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("grey", [False, True])
def test_a_jpeg_that_lacks_only_its_last_bytes_is_a_whole_picture(how, grey):
    content = encoded(ROUGH.convert("L") if grey else ROUGH, "JPEG", quality=90, **how)
    whole = decoded(content)
    for missing in (1, 2, 3, 20, 100):
        difference = np.abs(decoded(content[:-missing]) - whole)
        assert difference.max() <= 8 * (missing > 2)  # the last two bytes are no pixels
        assert difference.mean() < 0.05
    for part in (0.95, 0.8, 0.5, 0.2, 0.05):
        with pytest.raises(Unusable, match=r"damaged: .*truncated"):
            decoded(content[: int(len(content) * part)])


def texts(*kinds: tuple[str, bool], size: int = 2_000_000) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for kind, packed in kinds:
        (info.add_text if kind == "text" else info.add_itxt)("workflow", "x" * size, zip=packed)
    return info


def test_a_png_is_whole_whatever_stands_beside_its_pixels():
    icc = profile(*PROFILES["P3"])
    plain = encoded(PHOTO, "PNG", icc_profile=icc, pnginfo=texts(("text", False), size=9))
    wanted = decoded(plain)
    assert np.abs(wanted - squeezed(SCENE)).max() > 20
    big = zlib.compress(icc + bytes(2_000_000))
    for content in (
        encoded(PHOTO, "PNG", icc_profile=icc, pnginfo=texts(("text", True))),
        encoded(PHOTO, "PNG", icc_profile=icc, pnginfo=texts(("itxt", True))),
        encoded(PHOTO, "PNG", icc_profile=icc, pnginfo=texts(*[("text", True)] * 80, size=1_000_000)),
        encoded(PHOTO, "PNG", icc_profile=icc + bytes(2_000_000)),
        plain.replace(b"workflow", b"Workflow"),  # its checksum is wrong
        plain[:33] + chunk(b"zTXt", b"k\0\7nonsense") + chunk(b"iCCP", b"name\0\0" + big) + plain[33:],
    ):
        np.testing.assert_array_equal(decoded(content), wanted)
    turned = Image.Exif()
    turned[0x0112] = 3
    content = encoded(PHOTO, "PNG", exif=turned, pnginfo=texts(("text", True)))
    np.testing.assert_allclose(decoded(content), squeezed(SCENE[::-1, ::-1]), atol=1)


def test_a_png_whose_pixels_are_damaged_is_not_mended():
    content = bytearray(encoded(PHOTO, "PNG", pnginfo=texts(("text", True))))
    content[content.find(b"IDAT") + 40] ^= 255
    with pytest.raises(Unusable, match="damaged"):
        decoded(bytes(content))
