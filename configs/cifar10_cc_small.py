"""CC on the 10,000 test images of CIFAR-10, sized for a laptop without a GPU.

python -m jaxclust.main --config=configs/cifar10_cc_small.py
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
                plain=dict(policy="plain"),  # for evaluation
                # At 32 pixels a crop of 8 % is 9 pixels wide.
                strong=dict(policy="simclr", area=(0.2, 1.0), flip=0.5, strength=0.5, grey=0.2, blur=0.0),
            ),
            # small: for two cores
            net=dict(depth=18, stem="imagenet", width=16, dtype="float32", remat=False, init_from=""),
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
            # A shorter run takes larger steps.
            optim=dict(name="adam", lr=1e-3, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=65, batch_size=256, accumulate=1, log_every=13),
            eval=dict(view="plain", paper_view="plain", batch_size=512, restarts=10, held_out=2_000),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
