"""ImageNet-10, ImageNet-Dogs and Tiny-ImageNet, which tfds does not have, as specs and as builders for tfds.

The subsets of ImageNet are those of DAC (Chang et al., ICCV 2017): 1,300 training images of each synset. A record
holds the JPEG as it was published; one of ImageNet-Dogs (n02105855_2933.JPEG) is a PNG under that name, and some
are grey or CMYK.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxclust.data.prepare.archives import File, stages
from jaxclust.data.prepare.spec import Spec, Split
from jaxclust.run.errors import ConfigError

IMAGE = re.compile(r"(n\d{8})_\d+\.JPEG")
SYNSET = re.compile(r"n\d{8}")


def locate(spec: Spec, origin: Path, scratch: Path | None) -> list[dict[str, File]]:
    """All images of the set's synsets, by their names, which begin with the synset."""
    synsets = dict(zip(spec.names["label"], spec.counts["train"]["label"]))
    found: dict[str, dict[str, File]] = {synset: {} for synset in synsets}

    def wanted(name: str) -> bool:
        return bool(m := IMAGE.fullmatch(name)) and m[1] in synsets

    def enter(name: str) -> bool:
        if spec.name != "tiny_imagenet" and name == "tiny-imagenet-200":  # the same names, smaller images
            return False
        return not SYNSET.fullmatch(name) or name in synsets

    for stage in stages(origin, scratch, wanted, enter):
        for file in stage:
            found[file.name[:9]].setdefault(file.name, file)
        if all(len(found[synset]) == n for synset, n in synsets.items()):
            break
    wrong = [f"{s} ({len(found[s]):,} of {n:,})" for s, n in synsets.items() if len(found[s]) != n]
    if wrong:
        shown = ", ".join(wrong[:20]) + (f" and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise ConfigError(
            f"{origin} lacks training images of {len(wrong)} of {spec.name}'s {len(synsets)} synsets: {shown}; "
            f"give --from=PATH to {spec.wants}"
        )
    return [{name: file for files in found.values() for name, file in sorted(files.items())}]


def parse(spec: Spec, files: dict[str, File]) -> dict[str, Split]:
    index = {synset: k for k, synset in enumerate(spec.names["label"])}
    names = list(files)
    columns = {"label": [index[name[:9]] for name in names], "file_name": names}
    place = Path(next(iter(files.values())).place)
    return {"train": Split(str(place.parent), list(files.values()), columns, names)}


def _spec(name: str, synsets: dict[str, str], each: int, **settings: Any) -> Spec:
    return Spec(
        name=name,
        counts={"train": {"label": (each,) * len(synsets)}},
        sizes={"train": each * len(synsets)},
        names={"label": tuple(synsets)},
        titles=tuple(synsets.values()),
        find=locate,
        parse=parse,
        **settings,
    )


def _synsets(text: str) -> dict[str, str]:
    """`{synset: words}` of lines `synset words`."""
    return dict(line.strip().split(" ", 1) for line in text.strip().splitlines())


_subset = functools.partial(
    _spec,
    each=1300,
    shape=None,
    mean=None,
    tolerance=0.0,
    urls=(),
    wants="ILSVRC2012_img_train.tar (from image-net.org, with an account), to a folder of the tars in it or to "
    "one of synset folders",
)
IMAGENET10 = _subset(
    "imagenet10",
    _synsets("""
        n02056570 king penguin
        n02085936 Maltese dog
        n02128757 snow leopard
        n02690373 airliner
        n02692877 airship
        n03095699 container ship
        n04254680 soccer ball
        n04285008 sports car
        n04467665 trailer truck
        n07747607 orange
    """),
)
IMAGENET_DOGS = _subset(
    "imagenet_dogs",
    _synsets("""
        n02085936 Maltese dog
        n02086646 Blenheim spaniel
        n02088238 basset
        n02091467 Norwegian elkhound
        n02097130 giant schnauzer
        n02099601 golden retriever
        n02101388 Brittany spaniel
        n02101556 clumber
        n02102177 Welsh springer spaniel
        n02105056 groenendael
        n02105412 kelpie
        n02105855 Shetland sheepdog
        n02107142 Doberman
        n02110958 pug
        n02112137 chow
    """),
)
TINY_IMAGENET = _spec(
    "tiny_imagenet",
    _synsets(Path(__file__).with_name("tiny_imagenet.txt").read_text("utf-8")),
    each=500,
    shape=(64, 64),
    mean=(0.4802, 0.4481, 0.3975),
    tolerance=5e-3,  # the images are looked at an eighth of their size
    urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
    wants="tiny-imagenet-200.zip, or the folder unpacked from it",
)


class _Synsets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A training split of JPEGs in classes named by synsets."""

    VERSION = tfds.core.Version("1.0.0")
    SPEC: Spec

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=list(self.SPEC.names["label"])),
                "file_name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=features, supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        return {"train": self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        split = self.SPEC.open(path, None)["train"]
        for i, key in enumerate(split.keys):
            columns = {name: values[i] for name, values in split.columns.items()}
            yield key, {"image": split.images[i].read(), **columns}


class Imagenet10(_Synsets):
    """Ten classes of ImageNet's training images that are easily told apart (Chang et al., ICCV 2017)."""

    SPEC = IMAGENET10
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put into it, or give as it, {IMAGENET10.wants}."


class ImagenetDogs(_Synsets):
    """Fifteen breeds of dogs of ImageNet's training images (Chang et al., ICCV 2017)."""

    SPEC = IMAGENET_DOGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put into it, or give as it, {IMAGENET_DOGS.wants}."


class TinyImagenet(_Synsets):
    """The training images of Tiny-ImageNet: 200 classes of ImageNet at 64 x 64 pixels (Stanford, CS231n)."""

    SPEC = TINY_IMAGENET
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put into it, or give as it, {TINY_IMAGENET.wants}."
