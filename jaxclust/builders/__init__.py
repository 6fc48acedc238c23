"""The data sets of the papers from the files they were published in; importing this makes ours known to tfds, too.

    import jaxclust.builders
    tfds.builder("imagenet_dogs")

They are then also prepared by tfds's own `download_and_prepare` with a `manual_dir`, which needs TensorFlow where a
split has more than a gigabyte; `python -m jaxclust.main --mode=prepare` never does.
"""

from jaxclust.builders import cifar, idx, imagenet, stl10

SPECS = {
    spec.name: spec
    for spec in (
        cifar.CIFAR10,
        cifar.CIFAR100,
        stl10.STL10,
        idx.MNIST,
        idx.FASHION_MNIST,
        imagenet.IMAGENET10,
        imagenet.IMAGENET_DOGS,
        imagenet.TINY_IMAGENET,
    )
}
