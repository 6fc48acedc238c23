"""Colour profiles: the same scene, stored in any space, comes out as in sRGB."""

import struct

import numpy as np
import pytest
from helpers.images import (
    GREY,
    PHOTO,
    PLAIN,
    PROFILES,
    SCENE,
    SRGB,
    decoded,
    encoded,
    in_space,
    linear,
    made,
    profile,
    squeezed,
)
from PIL import Image, ImageCms


@pytest.mark.parametrize("name", PROFILES)
def test_colours_of_any_profile_come_out_as_those_of_the_same_scene_in_srgb(name):
    stored, icc = Image.fromarray(in_space(name)), profile(*PROFILES[name])
    assert np.abs(squeezed(np.asarray(stored)) - squeezed(PLAIN)).mean() > 3  # what ignoring the profile costs
    for content in (
        encoded(stored, "PNG", icc_profile=icc),
        encoded(stored, "TIFF", icc_profile=icc),
        encoded(stored, "WEBP", lossless=True, icc_profile=icc),
        encoded(stored.convert("RGBA"), "PNG", icc_profile=icc),
        encoded(stored, "JPEG", quality=100, subsampling=0, icc_profile=icc),
    ):
        difference = np.abs(decoded(content) - squeezed(PLAIN))
        assert difference.mean() < 1.5
        assert difference.max() <= 10


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
def test_grey_profiles_count_too(gamma):
    stored = np.round(linear(GREY) ** (1 / gamma) * 255).astype(np.uint8)
    for icc in (profile(None, gamma, b"GRAY"), profile(SRGB, gamma)):  # of grey, and a colour one on a grey image
        for channels in (1, 3):
            got = decoded(encoded(Image.fromarray(stored), "PNG", icc_profile=icc), None, channels)
            np.testing.assert_allclose(got, np.dstack([GREY] * channels), atol=2)


def lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB colours under D50."""
    xyz = linear(colours) @ SRGB.T / (0.9642, 1, 0.8249)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), xyz * 7.787 + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def test_a_profile_of_inks_is_used():
    """Each mixture of four full inks is a colour of its own choosing."""
    mixtures = np.random.default_rng(0).integers(60, 200, (16, 3))
    mixtures[0], mixtures[15] = 255, 0
    table = np.round(lab(mixtures) * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8)
    same = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
    icc = made({b"A2B0": lut + 4 * same + table.tobytes() + 3 * same}, b"CMYK", b"Lab ", b"prtr")
    inks = np.array([[i >> 3 & 1, i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(16)], np.uint8) * 255
    stored = Image.fromarray(inks.reshape(4, 4, 4), "CMYK").resize((64, 64), Image.Resampling.NEAREST)
    got = decoded(encoded(stored, "TIFF", icc_profile=icc), None)[8::16, 8::16]
    np.testing.assert_allclose(got.reshape(16, 3), mixtures, atol=4)


def test_a_profile_of_other_channels_is_left_alone():
    inks = encoded(PHOTO.convert("CMYK"), "TIFF", icc_profile=profile(None, 1.0, b"GRAY"))
    np.testing.assert_allclose(decoded(inks), squeezed(SCENE), atol=1)


def test_a_broken_profile_does_not_lose_the_picture_and_srgb_moves_no_pixel():
    good = profile(*PROFILES["P3"])
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rng = np.random.default_rng(0)
    broken = [good[:n] for n in (1, 40, 127, 200, 300)] + [
        rng.bytes(500),
        b"\0" * 3000,
        good[:16] + b"CMYK" + good[20:],
    ]
    for icc in (*broken, srgb, profile(None, 2.2, b"GRAY")):
        np.testing.assert_array_equal(decoded(encoded(PHOTO, "PNG", icc_profile=icc)), squeezed(SCENE))
