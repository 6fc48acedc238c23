"""Anchor on ImageNet-10 with the paper's settings (Table 1: cluster NMI .804, ACC .674, ARI .588).

    python -m jaxclust.main --config=configs/imagenet10_anchor.py

The paper trains 2000 epochs.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=10,
            data=dict(
                name="imagenet10",
                splits=dict(train="train"),  # 13,000 images
                labels="label",  # for scores only
                size=224,
                stored=448,  # twice the side, so that crops stay sharp; released: out of the photograph itself
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                plain=dict(policy="plain"),
                strong=dict(policy="simclr", area=(0.08, 1.0), flip=0.5, strength=1.0, grey=0.2, blur=0.5),
            ),
            net=dict(depth=34, stem="imagenet", width=64, dtype="float32", remat=False, init_from=""),
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
                space="backbone",
                scale=1.0,  # of the space "projection" only
                init_epoch=0,
                init_features="batches",  # plain images, normalised in batches of 32, as released
                init_sample=1_000,  # an untrained network's centres need no more, and a sweep over all images is slow
            ),
            optim=dict(name="adam", lr=3e-4, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=2000, batch_size=128, accumulate=1, log_every=50),
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=2_600),  # a fifth
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
