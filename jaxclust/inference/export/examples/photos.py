"""Photos as the predictor takes them: upright, in sRGB, on white, squeezed to its size. Needs NumPy and Pillow."""

import io
import sys

import numpy as np
from PIL import Image, ImageCms, ImageOps

HEIGHT, WIDTH, CHANNELS = 32, 32, 3


def given():
    """Their names and themselves, uint8 [N, H, W, C], of the files that the command names, or of an array in a .npy"""
    files = sys.argv[1:] or sys.exit(f"give photos: python {sys.argv[0]} PHOTO ...")
    if files[0].endswith(".npy"):
        images = np.load(files[0])
        return range(len(images)), images
    photos = {}
    for file in files:
        try:
            photos[file] = read(file)
        except Exception as e:  # a broken file makes Pillow say anything
            print(f"left out {file}, which cannot be read: {e}", file=sys.stderr)
    return [*photos], np.stack([*photos.values()]) if photos else np.empty((0, HEIGHT, WIDTH, CHANNELS), np.uint8)


def read(file):
    image = ImageOps.exif_transpose(Image.open(file))
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if profile and image.mode in ("L", "RGB", "CMYK"):
        image = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    image = image.convert("RGB" if CHANNELS == 3 else "L").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(HEIGHT, WIDTH, CHANNELS)
