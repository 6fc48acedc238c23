"""TCC on the 10,000 test images of CIFAR-10, sized for a laptop without a GPU.

python -m jaxclust.main --config=configs/cifar10_tcc_small.py
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
                plain=dict(policy="standardised", mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)),
                strong=dict(
                    policy="moco",
                    area=(0.2, 1.0),
                    flip=0.5,
                    jitter=(0.4, 0.4, 0.4, 0.4),
                    grey=0.2,
                    mean=(0.491, 0.482, 0.447),
                    std=(0.247, 0.243, 0.262),
                ),
            ),
            # small: for two cores
            net=dict(depth=18, stem="imagenet", width=16, dtype="float32", remat=False, init_from=""),
            method=dict(
                name="tcc",
                views=("plain", "strong", "strong"),
                features=128,
                assignment="cosine",  # this and what follows: as in configs/digits_tcc.py, which says why
                scale=10.0,
                alpha=0.5,
                tau=0.5,
                lam=0.8,
                samples=1,
                momentum=0.99,
                entropy="mutual",
                sharpness=0.3,
                consistency=0.0,
                init_epoch=60,
                queue_clusters=100,
                queue_instances=9_600,  # about as many as there are images
                augment_clusters=True,
                aggregate="soft",
            ),
            # A shorter run takes larger steps.
            optim=dict(name="adam", lr=1e-3, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=85, batch_size=320, accumulate=1, log_every=31),
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=2_000),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
