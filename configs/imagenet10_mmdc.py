"""MMDC on ImageNet-10 with the paper's settings (Table I: NMI .719, ACC .811; best .732, .830).

    python -m jaxclust.main --config=configs/imagenet10_mmdc.py

The scores are the mean of five runs. Table V, after refinement, as released:
--config.optim.schedule='((300, 0.2),)' --config.method.refine_epoch=350.
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
                size=64,
                stored=96,
                dir="",
                resident="auto",
                max_bad=0.0,
            ),
            views=dict(
                centre=dict(policy="centre_crop", crop=64),
                strong=dict(policy="mmdc", jitter=(0.4, 0.4, 0.4, 0.125), grey=0.2, flip=0.5, turn=0.0, crops=(64,)),
                crop=dict(policy="mmdc", jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0, flip=0.0, turn=0.0, crops=(64,)),
            ),
            net=dict(depth=18, stem="mmdc", width=64, dtype="float32", remat=False, init_from=""),
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
                refine_epoch=400,  # never; from 350 in Table V only
                sobel=False,
            ),
            optim=dict(name="sgd", lr=0.05, momentum=0.9, decay=5e-4, schedule=((350, 0.2),), warmup_epochs=0),
            train=dict(epochs=400, batch_size=128, accumulate=1, log_every=52),
            # Held out is a fifth.
            eval=dict(view="centre", paper_view="centre", batch_size=512, restarts=10, held_out=2_600),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
