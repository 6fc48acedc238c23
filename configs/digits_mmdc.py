"""MMDC on scikit-learn's 1,797 handwritten digits, the smallest real job there is.

    python -m jaxclust.main --config=configs/digits_mmdc.py

Expect ACC .92, NMI .89 of the nearest mean in 100 s on two CPU cores, and its report (pixels: .79, .74).
Settings are those of MNIST (configs/mnist_mmdc.py); where one differs, a comment says why.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=10,
            data=dict(
                name="digits",
                splits=dict(train="all"),
                labels="label",  # for scores only
                size=16,  # the images are 8 x 8
                stored=0,
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                centre=dict(policy="centre_crop", crop=8),
                strong=dict(policy="mmdc", jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0, flip=0.0, turn=15.0, crops=(8, 7, 6)),
            ),
            # small: two cores, minutes
            net=dict(depth=4, stem="vgg", width=16, dtype="float32", remat=False, init_from=""),
            method=dict(
                name="mmdc",
                views=("centre", "strong"),
                rotation_view="",
                assignment=True,
                rotation=False,  # a turned digit is another sign
                group=128,
                means="one_hot",
                dim=0,  # as many as clusters
                sigma=0.0,
                refine_epoch=90,  # once the smaller steps have settled
                sobel=False,
            ),
            # lr x decay x steps is the paper's, at twice the lr: a twentieth of the steps, ten times the decay.
            optim=dict(name="sgd", lr=0.1, momentum=0.9, decay=5e-3, schedule=((80, 0.1),), warmup_epochs=0),
            train=dict(epochs=100, batch_size=128, accumulate=1, log_every=14),
            eval=dict(view="centre", paper_view="centre", batch_size=512, restarts=10, held_out=297),
            checkpoint=dict(every=50, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
