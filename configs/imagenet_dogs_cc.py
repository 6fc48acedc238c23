"""CC on ImageNet-Dogs with the paper's settings (Table 2: NMI .445, ACC .429, ARI .274).

    python -m jaxclust.main --config=configs/imagenet_dogs_cc.py

The paper trains 1000 epochs.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=15,
            data=dict(
                name="imagenet_dogs",
                splits=dict(train="train"),  # 19,500 images
                labels="label",  # for scores only
                size=224,
                stored=448,  # twice the side, so that crops stay sharp; released: out of the photograph itself
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                plain=dict(policy="plain"),  # for evaluation
                strong=dict(policy="simclr", area=(0.08, 1.0), flip=0.5, strength=1.0, grey=0.2, blur=0.5),
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
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=3_900),  # a fifth
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
