"""CC on CIFAR-10 with the paper's settings (Table 2: NMI .705, ACC .790, ARI .637).

    python -m jaxclust.main --config=configs/cifar10_cc.py

The paper trains 1000 epochs.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=10,
            data=dict(
                name="cifar10",
                splits=dict(train="train+test"),  # all 60,000 images, as the paper
                labels="label",  # for scores only
                size=224,
                stored=0,
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                plain=dict(policy="plain"),  # for evaluation
                strong=dict(policy="simclr", area=(0.08, 1.0), flip=0.5, strength=0.5, grey=0.2, blur=0.0),
            ),
            net=dict(depth=34, stem="imagenet", width=64, dtype="float32", remat=False, init_from=""),
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
            train=dict(epochs=1000, batch_size=256, accumulate=1, log_every=50),
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=10_000),  # the test split
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
