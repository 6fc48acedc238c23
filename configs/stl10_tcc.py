"""TCC on STL-10 with the paper's settings (Table 2: NMI .732, ACC .814, ARI .689).

    python -m jaxclust.main --config=configs/stl10_tcc.py

The paper trains at least 1000 epochs. Means and deviations are STL-10's own, as in MiCE, which it follows.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=10,
            data=dict(
                name="stl10",
                splits=dict(train="train+test"),  # the 13,000 images that have labels
                labels="label",  # for scores only
                size=96,
                stored=0,
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                plain=dict(policy="standardised", mean=(0.4409, 0.4279, 0.3868), std=(0.2683, 0.2610, 0.2687)),
                strong=dict(
                    policy="moco",
                    area=(0.2, 1.0),
                    flip=0.5,
                    jitter=(0.4, 0.4, 0.4, 0.4),
                    grey=0.2,
                    mean=(0.4409, 0.4279, 0.3868),
                    std=(0.2683, 0.2610, 0.2687),
                ),
            ),
            # 3 x 3 costs 9 times as much
            net=dict(depth=34, stem="imagenet", width=64, dtype="float32", remat=False, init_from=""),
            method=dict(
                name="tcc",
                views=("plain", "strong", "strong"),
                features=128,
                assignment="dot",
                scale=1.0,  # of the assignment "cosine" only
                alpha=0.5,
                tau=1.0,
                lam=0.8,
                samples=1,
                momentum=0.999,
                entropy="sample",
                sharpness=1.0,  # of the entropy "mutual" only
                consistency=0.0,
                init_epoch=0,
                queue_clusters=100,
                queue_instances=12_800,
                augment_clusters=True,
                aggregate="soft",
            ),
            optim=dict(name="adam", lr=3e-3, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=1000, batch_size=320, accumulate=1, log_every=50),  # 32 K
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=8_000),  # the test split
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
