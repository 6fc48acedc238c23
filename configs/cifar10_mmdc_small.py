"""MMDC on the 10,000 test images of CIFAR-10, sized for a laptop without a GPU.

    python -m jaxclust.main --config=configs/cifar10_mmdc_small.py

Where a setting is not the paper's, a comment says why.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=10,
            data=dict(
                name="cifar10",
                splits=dict(train="test"),  # 10,000 images instead of 60,000
                labels="label",  # for scores only
                size=32,
                stored=0,
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                centre=dict(policy="centre_crop", crop=20),
                strong=dict(policy="mmdc", jitter=(0.4, 0.4, 0.4, 0.125), grey=0.2, flip=0.5, turn=0.0, crops=(20,)),
                crop=dict(policy="mmdc", jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0, flip=0.0, turn=0.0, crops=(20,)),
            ),
            # small: for two cores
            net=dict(depth=18, stem="imagenet", width=16, dtype="float32", remat=False, init_from=""),
            method=dict(
                name="mmdc",
                views=("centre", "strong"),
                rotation_view="crop",
                assignment=True,
                rotation=True,
                group=128,
                means="one_hot",
                dim=0,  # as many as clusters
                sigma=0.0,
                refine_epoch=1_000,  # never
                sobel=False,
            ),
            # 26 epochs, where the paper has 400: the rotation task takes four fifths of the time.
            optim=dict(name="sgd", lr=0.05, momentum=0.9, decay=5e-4, schedule=((21, 0.2),), warmup_epochs=0),
            train=dict(epochs=26, batch_size=128, accumulate=1, log_every=26),
            eval=dict(view="centre", paper_view="centre", batch_size=512, restarts=10, held_out=2_000),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
