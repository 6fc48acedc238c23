"""CC on your own images: a folder of any nesting, a .tar or .zip of images, or a .npy or .npz array.

    python -m jaxclust.main --config=configs/folder.py --config.data.dir=PHOTOS --config.clusters=20

For a GPU with 16 GB or more. On a laptop's CPU add --config.data.size=32 --config.net.width=16
--config.train.epochs=60, and expect coarser groups. When you do not know how many groups there are, train with a guess
and then ask --mode=suggest-k.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=20,
            data=dict(
                name="folder",
                splits=dict(train="all"),
                labels="",  # "folders" where the first level is a folder for each class: for scores only
                size=96,
                stored=0,  # decoded to `size`
                dir="",  # your images
                resident="auto",
                max_bad=0.01,  # a run with more images than that unusable stops
            ),
            views=dict(
                plain=dict(policy="plain"),  # for evaluation
                strong=dict(policy="simclr", area=(0.2, 1.0), flip=0.5, strength=0.5, grey=0.2, blur=0.0),
            ),
            net=dict(depth=18, stem="imagenet", width=64, dtype="float32", remat=False, init_from=""),
            method=dict(
                name="cc",
                views=("strong", "strong"),
                projection=128,
                tau_instance=0.5,
                tau_cluster=1.0,
                instance=1.0,
                cluster=1.0,
                self_term=False,
                instance_split="",
            ),
            optim=dict(name="adam", lr=3e-4, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=300, batch_size=256, accumulate=1, log_every=50),
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=0),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
