"""Anchor on the 10,000 test images of CIFAR-10, sized for a laptop without a GPU.

python -m jaxclust.main --config=configs/cifar10_anchor_small.py
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
                size=32,  # as stored; the paper enlarges to 224
                stored=0,
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                plain=dict(policy="plain"),
                # At 32 pixels a crop of 8 % is 9 pixels wide.
                strong=dict(policy="simclr", area=(0.2, 1.0), flip=0.5, strength=0.5, grey=0.2, blur=0.0),
            ),
            # small: for two cores
            net=dict(depth=18, stem="imagenet", width=16, dtype="float32", remat=False, init_from=""),
            method=dict(
                name="anchor",
                views=("plain", "strong", "strong"),
                projection=128,
                tau=0.5,
                alpha=1.0,
                instance=20.0,
                cluster=0.1,
                anchor=0.1,
                anchor_loss="q0_q",
                stop_gradient=True,
                space="projection",  # what the instance loss shapes; the backbone's features have no fixed scale
                scale=5.0,  # far enough apart for the Student-t kernel to tell the centres apart
                init_epoch=45,  # centres placed in an untrained network mean nothing a few epochs later
                init_features="eval",
                init_sample=0,  # all images
            ),
            # A shorter run takes larger steps.
            optim=dict(name="adam", lr=1e-3, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=60, batch_size=256, accumulate=1, log_every=13),
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=2_000),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
