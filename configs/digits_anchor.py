"""Anchor on scikit-learn's 1,797 handwritten digits."""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=10,
            data=dict(
                name="digits",
                splits=dict(train="all"),
                label="label",  # for scores only
                size=16,
                dir="",
                resident="auto",
            ),
            views=dict(
                plain=dict(policy="plain"),
                strong=dict(policy="simclr", area=(0.4, 1.0), flip=0.0, strength=0.5, grey=0.0, blur=0.0),
            ),
            net=dict(depth=18, stem="imagenet", width=16, dtype="float32", remat=False),
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
                space="projection",
                scale=5.0,
                init_epoch=60,
                init_features="eval",
            ),
            optim=dict(name="adam", lr=1e-3, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=80, batch_size=256, log_every=7),
            eval=dict(view="plain", batch_size=512, restarts=10),
            checkpoint=dict(every=10, keep=3),
        )
    )
