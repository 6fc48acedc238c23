"""Views against Pillow on the same parameters, and the parameters against their stated distributions."""

import colorsys
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy import stats
from scipy.ndimage import gaussian_filter1d
from sklearn.datasets import load_sample_images

from jaxclust import views
from jaxclust.views import operations, sampling
from jaxclust.views.operations import to_planes

SETTINGS = dict(area=(0.08, 1.0), flip=0.5, strength=0.5, grey=0.2, blur=0.5)
MOCO = dict(area=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.4), grey=0.2)
MMDC = dict(jitter=(0.4, 0.4, 0.4, 0.125), grey=0.2, flip=0.5, turn=25, crops=(24, 20, 16))
BARE = dict(jitter=(0, 0, 0, 0), grey=0, flip=0, turn=0, crops=(20,))
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
LEVEL = 1 / 255
PACKED = 1 / operations.LEVELS  # what one trip through the packed form may cost: half of it, on either side


def photo(width=96, height=80):
    image = Image.fromarray(load_sample_images().images[0])
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


IMAGES = {"photo": photo(), "noise": noise(80, 96)}
each_image = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)


def to_array(planes):
    return np.stack(planes, -1)


def pil(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def unit(image):
    """A PIL image as float64[H, W, C] in [0, 1]."""
    array = np.asarray(image) / 255
    return array if array.ndim == 3 else array[..., None]


def assert_close(ours, theirs, most, mean):
    """Largest and mean difference, both in eight-bit levels."""
    error = np.abs(np.asarray(ours) - theirs) / LEVEL
    assert error.max() <= most
    assert error.mean() <= mean


# Pillow keeps eight bits: it rounds after each of the two passes of a resize, and truncates after a blend.


@each_image
@pytest.mark.parametrize("size", [17, 32, 80, 224])
def test_plain_is_pillows_antialiased_bilinear_resize(image, size):
    ours = views.make({"plain": {"policy": "plain"}}, size)["plain"](image, jax.random.key(0))
    assert ours.shape == (size, size, 3)
    assert ours.dtype == jnp.float32
    assert_close(ours, unit(pil(image).resize((size, size), Image.Resampling.BILINEAR)), most=1.05, mean=0.35)


def test_plain_at_the_size_of_the_image_changes_nothing():
    image = noise(32, 32)
    ours = views.make({"plain": {"policy": "plain"}}, 32)["plain"](image, jax.random.key(0))
    np.testing.assert_allclose(ours, image / 255, atol=1e-6)


@each_image
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 80, 96), (11, 7, 40, 53), (79, 95, 1, 1), (30, 0, 9, 96)])
def test_crop_resize_is_pillows_crop_then_resize_then_mirror(image, box, flip):
    top, left, height, width = box
    ours = jax.jit(operations.crop_resize, static_argnames="size")(to_planes(image), *box, flip, size=48)
    theirs = pil(image).crop((left, top, left + width, top + height)).resize((48, 48), Image.Resampling.BILINEAR)
    if flip:
        theirs = theirs.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert_close(to_array(ours), unit(theirs), most=1.05, mean=0.35)


def test_every_height_of_a_crop_is_pillows_in_one_batched_program():
    image = IMAGES["noise"]
    planes = to_planes(image)
    heights = np.arange(1, 81)
    batch = jax.jit(jax.vmap(lambda height: jnp.stack(operations.crop_resize(planes, 0, 5, height, 60, True, 40), -1)))
    for height, ours in zip(heights, batch(heights)):
        theirs = pil(image).crop((5, 0, 65, height)).resize((40, 40), Image.Resampling.BILINEAR)
        assert_close(ours, unit(theirs.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), most=1.05, mean=0.35)


@pytest.mark.parametrize(("size", "crop"), [(32, 20), (40, 33)])
def test_centre_crop_is_pillows(size, crop):
    image = photo()
    view = views.make({"v": {"policy": "centre_crop", "crop": crop}}, size)["v"]
    ours = jax.jit(view)(image, jax.random.key(0))
    top, left = round((80 - crop) / 2), round((96 - crop) / 2)
    theirs = pil(image).crop((left, top, left + crop, top + crop)).resize((size, size), Image.Resampling.BILINEAR)
    assert_close(ours, unit(theirs), most=1.05, mean=0.35)


@pytest.mark.parametrize("image", [noise(40, 40), noise(28, 28, 1), noise(30, 44)], ids=["colour", "grey", "oblong"])
def test_rotate_is_pillows_nearest_filled_with_black(image):
    rotate = jax.jit(lambda angle: jnp.stack(operations.rotate(to_planes(image), angle), -1))
    for angle in (0.0, 3.0, 25.0, -24.3, 90.0, 117.0, 180.0):
        wrong = np.abs(rotate(angle) - unit(pil(image).rotate(angle))).max(-1) > 1e-6
        assert wrong.mean() < 0.002  # two or three, where the place that a pixel comes from is between two pixels


def test_standardised_is_the_plain_view_less_the_mean_over_the_deviation():
    image = photo()
    both = {"plain": {"policy": "plain"}, "standard": {"policy": "standardised", "mean": MEAN, "std": STD}}
    plain, standard = jax.jit(lambda key: [view(image, key) for view in views.make(both, 32).values()])(
        jax.random.key(0)
    )
    np.testing.assert_allclose(standard, (np.asarray(plain) - MEAN) / STD, rtol=1e-5, atol=1e-6)


@each_image
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize(
    ("adjust", "enhance", "most"),
    [
        (operations.adjust_brightness, ImageEnhance.Brightness, 1.0),
        (operations.adjust_contrast, ImageEnhance.Contrast, 1.2),  # Pillow rounds the mean too
        (operations.adjust_saturation, ImageEnhance.Color, 1.3),  # and the grey image
    ],
)
def test_blends_are_pillows_enhancements(image, adjust, enhance, most, factor):
    ours = adjust(to_planes(image), factor)
    assert_close(to_array(ours), unit(enhance(pil(image)).enhance(factor)), most=most, mean=0.5)


@each_image
def test_saturation_zero_is_pillows_greyscale(image):
    ours = to_array(operations.adjust_saturation(to_planes(image), 0.0))
    assert_close(ours, unit(pil(image).convert("L").convert("RGB")), most=0.51, mean=0.3)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.07, 0.5, 1.3])
def test_hue_shift_moves_only_h(turn):
    pixels = np.random.default_rng(1).uniform(size=(400, 3))
    pixels[:60] = pixels[:60, :1]  # greys, which have no hue
    pixels[60:120, 1] = pixels[60:120, 0]  # ties for the largest or smallest channel
    pixels[120:140] = pixels[120:140] > 0.5
    hsv = [colorsys.rgb_to_hsv(*p) for p in pixels]
    theirs = [colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in hsv]
    ours = operations.hue_shift(tuple(jnp.asarray(pixels.T[:, None], jnp.float32)), turn)
    np.testing.assert_allclose(to_array(ours)[0], theirs, atol=2e-6)


def pil_hue(image, turn):
    """torchvision's adjust_hue on a PIL image."""
    h, s, v = image.convert("HSV").split()
    shifted = np.asarray(h) + np.int32(turn * 255).astype(np.uint8)  # wraps around
    return Image.merge("HSV", (Image.fromarray(shifted), s, v)).convert("RGB")


@each_image
@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.1, 0.5])
def test_hue_shift_is_near_pillows(image, turn):
    # Pillow truncates H and S to eight bits and one step of H is up to six levels of a channel, so this is loose.
    ours = to_array(operations.hue_shift(to_planes(image), turn))
    assert_close(ours, unit(pil_hue(pil(image), turn)), most=15.5, mean=1.7)


def gaussian(image, sigma, radius):
    for axis in (0, 1):
        image = gaussian_filter1d(image, sigma, axis, mode="nearest", radius=radius)
    return image


@each_image
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
@pytest.mark.parametrize("radius", [1, 4, 8])
def test_blur_is_the_truncated_gaussian(image, sigma, radius):
    ours = to_array(operations.gaussian_blur(to_planes(image), sigma, radius))
    np.testing.assert_allclose(ours, gaussian(image / 255, sigma, radius), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_near_pillows_box_approximation(sigma):
    ours = to_array(operations.gaussian_blur(to_planes(photo()), sigma, 8))
    assert_close(ours, unit(pil(photo()).filter(ImageFilter.GaussianBlur(sigma))), most=15, mean=0.55)


def test_blur_of_sigma_zero_changes_nothing():
    planes = to_planes(noise(20, 20))
    np.testing.assert_allclose(to_array(operations.gaussian_blur(planes, 0.0, 4)), to_array(planes), atol=1e-6)


def apply_in_order(planes, jitter):
    """`jitter`, the slow and obvious way."""
    steps = [
        lambda p: operations.adjust_brightness(p, jitter.brightness),
        lambda p: operations.adjust_contrast(p, jitter.contrast),
        lambda p: operations.adjust_saturation(p, jitter.saturation),
        lambda p: operations.hue_shift(p, jitter.hue),
    ]
    for i in np.argsort(jitter.time):
        planes = steps[i](planes)
    return planes


def test_jitter_applies_the_four_in_each_of_the_24_orders():
    planes = to_planes(photo(24, 24))
    times = jnp.array(list(permutations([0.1, 0.2, 0.3, 0.4])))
    jitter = operations.Jitter(1.3, 1.4, 1.5, 0.13, times)
    ours = jax.vmap(lambda time: jnp.stack(operations.colour_jitter(planes, jitter._replace(time=time)), -1))(times)
    theirs = [to_array(apply_in_order(planes, jitter._replace(time=time))) for time in times]
    # Three trips through ten bits, of which later factors above 1 enlarge what the earlier cost.
    np.testing.assert_allclose(ours, theirs, atol=4 * PACKED)
    apart = [np.abs(a - b).max() for i, a in enumerate(theirs) for b in theirs[:i]]
    assert np.mean(np.array(apart) > 8 * PACKED) > 0.95  # the orders do differ, so this can tell them apart


def test_jitter_of_nothing_changes_nothing():
    planes = to_planes(noise(20, 20))
    ours = operations.colour_jitter(planes, operations.Jitter(1.0, 1.0, 1.0, 0.0, jnp.array([0.3, 0.1, 0.4, 0.2])))
    np.testing.assert_allclose(to_array(ours), to_array(planes), atol=1e-6)


# ---------------------------------------------------------------- the pipeline


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(2), 20_000)


@pytest.fixture(scope="module")
def sample(keys):
    """The parameters that `keys` give an image of the shape (80, 96), on the host."""
    draw = jax.jit(jax.vmap(lambda key: sampling.sample_simclr(key, (80, 96), **SETTINGS)))
    return jax.device_get(draw(keys))


def pil_crop_resize(image, crop, size):
    top, left, height, width = map(int, crop)
    return image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)


def pil_jitter(image, jitter):
    colour = image.mode == "RGB"
    brightness, contrast, saturation, hue = map(float, jitter[:4])
    for i in np.argsort(jitter.time):
        if i == 0:
            image = ImageEnhance.Brightness(image).enhance(brightness)
        elif i == 1:
            image = ImageEnhance.Contrast(image).enhance(contrast)
        elif i == 2 and colour:
            image = ImageEnhance.Color(image).enhance(saturation)
        elif i == 3 and colour and hue:
            image = pil_hue(image, hue)
    return image


def pil_grey(image):
    return image.convert("L").convert(image.mode)


def pil_flip(image):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def pil_simclr(image, params, size):
    """torchvision's composition, on the same parameters, but for Pillow's approximation of the blur."""
    image = pil_crop_resize(pil(image), params.crop, size)
    image = pil_flip(image) if params.flip else image
    image = pil_jitter(image, params.jitter)
    image = pil_grey(image) if params.grey else image
    return gaussian(unit(image), params.sigma, max(1, size // 20)) if params.sigma else unit(image)


@pytest.mark.parametrize(("channels", "size"), [(3, 40), (1, 96)])
def test_simclr_is_the_pillow_composition_on_the_sampled_parameters(size, channels, keys, sample):
    image = photo() if channels == 3 else photo()[..., 1:2]
    view = views.make({"strong": {"policy": "simclr", **SETTINGS}}, size)["strong"]
    ours = jax.jit(jax.vmap(view, (None, 0)))(image, keys[:48])
    errors = []
    for i, out in enumerate(ours):
        theirs = pil_simclr(image, jax.tree.map(lambda leaf, i=i: leaf[i], sample), size)
        errors.append(np.abs(out - theirs) / LEVEL)
    errors = np.array(errors)
    # Most of it is Pillow's eight-bit H, enlarged by contrast and saturation after it.
    most, mean, worst_mean = (14, 1.2, 2.2) if channels == 3 else (4.5, 0.9, 1.3)
    assert errors.max() <= most
    assert errors.mean() <= mean
    assert errors.mean((1, 2, 3)).max() <= worst_mean


def pil_moco(image, params, size):
    image = pil_crop_resize(pil(image), params.crop, size)
    image = pil_grey(image) if params.grey else image
    image = pil_jitter(image, params.jitter)
    return unit(pil_flip(image) if params.flip else image)


def pil_mmdc(image, params, size):
    """The order in which the view does it; the paper's has the flip before the rotation."""
    image = pil_jitter(pil(image), params.jitter)
    image = pil_grey(image) if params.grey else image
    image = pil_crop_resize(image.rotate(float(params.angle)), params.crop, size)
    return unit(pil_flip(image) if params.flip else image)


def sampled(sample, keys, **settings):
    """The parameters that `keys` give an image of the shape (40, 48), on the host."""
    return jax.device_get(jax.jit(jax.vmap(lambda key: sample(key, (40, 48), **settings)))(keys))


@pytest.fixture(scope="module")
def moco_sample(keys):
    return sampled(sampling.sample_moco, keys[:5_000], **MOCO)


@pytest.fixture(scope="module")
def mmdc_sample(keys):
    return sampled(sampling.sample_mmdc, keys[:5_000], **MMDC)


def errors(policy, composition, image, keys, params):
    """How far the views are from Pillow's composition, in eight-bit levels, f64[B, S, S, C]."""
    ours = jax.jit(jax.vmap(views.make({"v": policy}, 24)["v"], (None, 0)))(image, keys)
    if "mean" in policy:
        ours = ours * np.array(policy["std"]) + np.array(policy["mean"])
    theirs = [composition(image, jax.tree.map(lambda leaf, i=i: leaf[i], params), 24) for i in range(len(keys))]
    return np.abs(np.asarray(ours) - theirs) / LEVEL


def test_moco_is_the_pillow_composition_on_the_sampled_parameters(keys, moco_sample):
    policy = {"policy": "moco", **MOCO, "mean": MEAN, "std": STD}
    error = errors(policy, pil_moco, photo(48, 40), keys[:32], moco_sample)
    assert error.max() <= 14
    assert error.mean() <= 1.3


def test_mmdc_is_the_pillow_composition_on_the_sampled_parameters(keys, mmdc_sample):
    error = errors({"policy": "mmdc", **MMDC}, pil_mmdc, photo(48, 40), keys[:32], mmdc_sample)
    assert np.mean(error > 14) < 0.001  # a pixel that comes from between two may be either
    assert error.mean() <= 1.3


def test_mmdc_without_colour_is_pillows_to_a_level(keys, mmdc_sample):
    policy = {"policy": "mmdc", **MMDC, "jitter": (0, 0, 0, 0)}
    params = mmdc_sample._replace(jitter=operations.Jitter(*np.ones((3, 16)), np.zeros(16), np.zeros((16, 4))))
    error = errors(policy, pil_mmdc, photo(48, 40)[..., 1:2], keys[:16], params)
    assert np.mean(error > 1.05) < 0.001  # likewise
    assert error.mean() <= 0.35


def test_the_same_key_gives_the_same_view_alone_or_in_a_batch():
    images = noise(6 * 16, 12).reshape(6, 16, 12, 3)
    view = views.make({"strong": {"policy": "simclr", **SETTINGS}}, 16)["strong"]
    keys = jax.random.split(jax.random.key(3), 6)
    as_users = {"xla_cpu_use_fusion_emitters": True}  # conftest turns them off, and more values round the other way
    batch = jax.jit(jax.vmap(view), compiler_options=as_users)(images, keys)
    reverse = jax.jit(jax.vmap(view), compiler_options=as_users)(images[::-1], keys[::-1])
    np.testing.assert_array_equal(batch, reverse[::-1])
    single = jax.jit(view, compiler_options=as_users)
    for image, key, out in zip(images, keys, batch):
        alone = single(image, key)
        # Another program, where a value halfway between two steps of the packed form may round the other way.
        np.testing.assert_allclose(out, alone, atol=4 * PACKED)
        assert np.abs(out - alone).mean() < 1e-5


@pytest.mark.parametrize("image", [noise(40, 30, 1), noise(3, 60)], ids=["grey", "narrow"])
def test_views_are_f32_images_within_0_and_1_and_differ_by_key(image):
    strong = {"policy": "simclr", **SETTINGS, "strength": 2.0}
    for view in views.make({"plain": {"policy": "plain"}, "strong": strong}, 24).values():
        out = jax.jit(jax.vmap(view, (None, 0)))(image, jax.random.split(jax.random.key(0), 32))
        assert out.shape == (32, 24, 24, image.shape[-1])
        assert out.dtype == jnp.float32
        assert 0 <= out.min() <= out.max() <= 1
    assert np.unique(out.mean((1, 2, 3))).size > 24


def program(policy, channels=3):
    """The lines of the program of a view."""
    view = views.make({"v": policy}, 64)["v"]
    arguments = jax.ShapeDtypeStruct((64, 64, channels), jnp.uint8), jax.random.key(0)
    return jax.jit(view).lower(*arguments).as_text().splitlines()


def test_what_is_switched_off_leaves_the_program():
    def size_of(channels=3, **changes):
        return len(program({"policy": "simclr", **SETTINGS, **changes}, channels))

    everything = size_of()
    for change in (dict(strength=0.0), dict(grey=0.0), dict(blur=0.0)):
        assert size_of(**change) < everything
    assert size_of(channels=1, grey=0.5) == size_of(channels=1, grey=0.2)
    assert size_of(channels=1) < everything


def test_without_colour_and_rotation_mmdc_is_but_a_crop():
    bare = program({"policy": "mmdc", **BARE})
    for change in (dict(jitter=(0, 0, 0, 0.1)), dict(grey=0.5), dict(turn=5)):
        assert len(program({"policy": "mmdc", **BARE, **change})) > len(bare)
    assert not any("sine" in line for line in bare)


def test_images_of_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match=r"1 or 3 channels, not of shape \(8, 8, 4\)"):
        to_planes(noise(8, 8, 4))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2,)), (MEAN, (0.2,)), ((0.5,), STD)])
def test_a_mean_or_deviation_for_other_channels_is_refused(mean, std):
    view = views.make({"v": {"policy": "standardised", "mean": mean, "std": std}}, 8)["v"]
    with pytest.raises(ValueError, match="must each have a number for every channel of the image, here 3"):
        jax.eval_shape(view, noise(8, 8), jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"policy": "mmdc", **BARE, "crops": (20, 33)}, "crops"), ({"policy": "centre_crop", "crop": 33}, "crop")],
)
def test_a_crop_larger_than_the_image_is_refused(settings, key):
    view = views.make({"v": settings}, 8)["v"]
    with pytest.raises(ValueError, match=f"crop of 33 pixels does not fit in an image of 32 x 40; .* `{key}` smaller"):
        jax.eval_shape(view, noise(32, 40), jax.random.key(0))


# ---------------------------------------------------------------- sampling


def assert_fraction(hits, p):
    assert stats.binomtest(int(hits.sum()), hits.size, p).pvalue > 1e-3


def assert_uniform(values, low, high):
    assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def assert_always_jitters(jitter, spread):
    for values, nothing, most in zip(jitter[:4], (1, 1, 1, 0), spread):
        assert_uniform(values, nothing - most, nothing + most)


def assert_uncorrelated(*values):
    assert np.abs(np.corrcoef(np.stack(values)) - np.eye(len(values))).max() < 0.06


def test_flip_grey_blur_and_jitter_come_as_often_as_stated(sample):
    assert_fraction(sample.flip, 0.5)
    assert_fraction(sample.grey, 0.2)
    assert_fraction(sample.sigma > 0, 0.5)
    assert_fraction(sample.jitter.hue != 0, 0.8)
    together = np.stack([sample.flip, sample.grey, sample.sigma > 0, sample.jitter.hue != 0])
    assert np.abs(np.corrcoef(together) - np.eye(4)).max() < 0.03


def test_jitter_values_are_uniform_independent_and_happen_together(sample):
    jitter = sample.jitter
    happens = jitter.hue != 0
    for factor in (jitter.brightness, jitter.contrast, jitter.saturation):
        assert_uniform(factor[happens], 0.6, 1.4)
        assert (factor[~happens] == 1).all()
    assert_uniform(jitter.hue[happens], -0.1, 0.1)
    values = np.stack([v[happens] for v in (*jitter[:4], *jitter.time.T)])
    assert np.abs(np.corrcoef(values) - np.eye(8)).max() < 0.03


def test_jitter_factors_are_floored_at_zero():
    keys = jax.random.split(jax.random.key(5), 5_000)
    jitter = jax.jit(jax.vmap(lambda key: sampling.sample_jitter(key, 1.6, 0.4, 0.4, 0.4, p=1.0)))(keys)
    assert_uniform(jitter.brightness, 0.0, 2.6)
    assert_uniform(jitter.contrast, 0.6, 1.4)
    assert_uniform(jitter.hue, -0.4, 0.4)


def test_all_24_orders_of_the_jitter_are_equally_likely(sample):
    orders, counts = np.unique(np.argsort(sample.jitter.time, axis=1), axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_sigma_is_uniform(sample):
    assert_uniform(sample.sigma[sample.sigma > 0], 0.1, 2.0)


def test_crops_lie_in_the_image_within_the_stated_area_and_aspect(sample):
    top, left, height, width = sample.crop
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 80).all()
    assert (left + width <= 96).all()
    # A side is rounded to whole pixels, so the bounds hold with half a pixel more or less.
    assert ((height + 0.5) * (width + 0.5) >= 0.08 * 80 * 96).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()


def draw_crops(keys, shape, area):
    return jax.device_get(jax.jit(jax.vmap(lambda key: sampling.sample_crop(key, shape, area)))(keys))


def test_crops_that_always_fit_are_uniform_in_area_log_aspect_and_place():
    keys = jax.random.split(jax.random.key(4), 5_000)
    # Half of a large square fits at any aspect, so no draw is rejected; at this size rounding is too fine to see.
    crop = draw_crops(keys, (4000, 4000), (0.1, 0.5))
    assert_uniform(crop.height * crop.width / 4000**2, 0.1, 0.5)
    assert_uniform(np.log(crop.width / crop.height), np.log(3 / 4), np.log(4 / 3))
    assert_uniform((crop.top + 0.5) / (4000 - crop.height + 1), 0, 1)
    assert_uniform((crop.left + 0.5) / (4000 - crop.width + 1), 0, 1)


def test_crop_areas_are_those_of_rejection_sampling(sample):
    rng = np.random.default_rng(0)
    area = 80 * 96 * rng.uniform(0.08, 1, 60_000)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 60_000))
    width, height = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
    fits = (width <= 96) & (height <= 80)
    assert stats.ks_2samp(sample.crop.height * sample.crop.width, (width * height)[fits]).pvalue > 1e-3


def test_crops_reach_every_place_down_to_the_last_pixel():
    keys = jax.random.split(jax.random.key(6), 3_000)
    crop = draw_crops(keys, (2, 3), (1 / 6, 1 / 6))  # a single pixel
    places, counts = np.unique(crop.top * 3 + crop.left, return_counts=True)
    assert places.tolist() == list(range(6))
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("shape", "expected"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_a_crop_that_never_fits_falls_back_to_the_centre(shape, expected):
    crop = sampling.sample_crop(jax.random.key(0), shape, (1.0, 1.0))
    assert tuple(map(int, crop)) == expected


def test_moco_always_jitters_and_flips_and_greys_as_often_as_stated(moco_sample):
    assert_fraction(moco_sample.flip, 0.5)
    assert_fraction(moco_sample.grey, 0.2)
    assert_always_jitters(moco_sample.jitter, MOCO["jitter"])
    crop = moco_sample.crop
    assert ((crop.height + 0.5) * (crop.width + 0.5) >= 0.2 * 40 * 48).all()
    assert_uncorrelated(moco_sample.flip, moco_sample.grey, crop.top, moco_sample.jitter.hue)


def test_mmdc_turns_either_way_and_always_jitters_and_flips_and_greys_as_often_as_stated(mmdc_sample):
    assert_fraction(mmdc_sample.flip, 0.5)
    assert_fraction(mmdc_sample.grey, 0.2)
    assert_uniform(mmdc_sample.angle, -25, 25)
    assert_always_jitters(mmdc_sample.jitter, MMDC["jitter"])
    crop = mmdc_sample.crop
    assert_uncorrelated(mmdc_sample.flip, mmdc_sample.grey, mmdc_sample.angle, crop.top, mmdc_sample.jitter.hue)


def test_square_crops_are_as_likely_of_every_side_and_at_every_place():
    keys = jax.random.split(jax.random.key(11), 9_000)
    crop = jax.device_get(jax.jit(jax.vmap(lambda key: sampling.sample_square(key, (6, 7), (4, 5, 6))))(keys))
    np.testing.assert_array_equal(crop.height, crop.width)
    for side in (4, 5, 6):
        here = crop.height == side
        assert_fraction(here, 1 / 3)
        places, counts = np.unique(np.stack([crop.top, crop.left])[:, here], axis=1, return_counts=True)
        assert places.T.tolist() == [[top, left] for top in range(7 - side) for left in range(8 - side)]
        assert stats.chisquare(counts).pvalue > 1e-3


# ---------------------------------------------------------------- config


def test_make_names_the_wrong_key_and_the_nearest_valid_one():
    def message(config):
        with pytest.raises(ValueError, match=r"views\.strong") as error:
            views.make({"strong": config}, 32)
        return str(error.value)

    good = {"policy": "simclr", **SETTINGS}
    assert message({**good, "policy": "simclear"}) == "views.strong.policy is 'simclear' (did you mean simclr?)"
    policies = "plain, standardised, centre_crop, simclr, moco, mmdc"
    assert message(SETTINGS) == f"missing views.strong.policy, the name of a policy: {policies}"
    assert message("simclr") == f"missing views.strong.policy, the name of a policy: {policies}"
    assert message({**good, "strenght": 1.0}) == (
        "unknown key views.strong.strenght (did you mean views.strong.strength?)"
    )
    assert "unknown key views.strong.size" in message({"policy": "plain", "size": 32})
    missing = message({k: v for k, v in good.items() if k not in ("area", "blur")})
    assert missing == "the config has no views.strong.area, views.strong.blur"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flip", 1.5),
        ("flip", "half"),
        ("grey", -0.1),
        ("blur", True),
        ("blur", float("nan")),
        ("strength", -1),
        ("strength", float("inf")),
        ("strength", None),
        ("area", 0.08),
        ("area", (0.0, 1.0)),
        ("area", (0.5, 0.2)),
        ("area", (0.5, 1.2)),
        ("area", (0.1, 0.2, 0.3)),
    ],
)
def test_make_refuses_values_outside_their_range(key, value):
    with pytest.raises(ValueError, match=rf"views\.strong\.{key} is .*; it must be a"):
        views.make({"strong": {"policy": "simclr", **SETTINGS, key: value}}, 32)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("jitter", ()),
        ("jitter", 0.4),
        ("jitter", (0.4, 0.4, 0.4)),
        ("jitter", (0.4, 0.4, -0.4, 0.1)),
        ("jitter", (0.4, 0.4, 0.4, 0.6)),
        ("jitter", (float("nan"), 0.4, 0.4, 0.1)),
        ("turn", -5),
        ("turn", 181),
        ("crops", ()),
        ("crops", 20),
        ("crops", (20, 0)),
        ("crops", (20.0,)),
        ("crop", True),
        ("crop", 0),
        ("mean", 0.5),
        ("mean", (0.5, 0.5)),
        ("mean", ("a",)),
        ("mean", (float("inf"),)),
        ("std", (0.2, 0.2, 0.0)),
        ("std", ()),
    ],
)
def test_settings_of_the_other_policies_are_refused_outside_their_range(key, value):
    good = {
        "mmdc": MMDC,
        "moco": {**MOCO, "mean": MEAN, "std": STD},
        "centre_crop": {"crop": 20},
        "standardised": {"mean": MEAN, "std": STD},
    }
    for policy, settings in good.items():
        views.make({"v": {"policy": policy, **settings}}, 32)
        if key in settings:
            with pytest.raises(ValueError, match=rf"views\.v\.{key} is .*; it must be a"):
                views.make({"v": {"policy": policy, **settings, key: value}}, 32)
