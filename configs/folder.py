"""Your own images: a folder of any nesting, a .tar or .zip of images, a list of files, or a .npy or .npz array.

    python -m jaxclust.main --config=configs/folder.py --config.data.dir=PHOTOS --config.clusters=20
    python -m jaxclust.main --config=configs/folder.py:tcc --config.data.dir=PHOTOS --config.clusters=20

CC where no method is named after the colon; anchor, tcc and mmdc are the others. What is None is chosen when the run
begins, by the device and by how many images there are (`jaxclust/training/sizing.py` says how), and kept in its
config.json; each can be given: --config.train.epochs=60. When you do not know how many groups there are, train with a
guess and then ask --mode=suggest-k.
"""

from ml_collections import ConfigDict

SIMCLR = dict(policy="simclr", area=(0.2, 1.0), flip=0.5, strength=0.5, grey=0.2, blur=0.0)
COLOUR = dict(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
MOCO = dict(policy="moco", area=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.4), grey=0.2, **COLOUR)
MMDC = dict(policy="mmdc", jitter=(0.4, 0.4, 0.4, 0.125), grey=0.2, flip=0.5, turn=0.0, crops=None)
BARE = MMDC | dict(jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0, flip=0.0)
ADAM = dict(name="adam", lr=None, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0)
SGD = dict(name="sgd", lr=0.05, momentum=0.9, decay=5e-4, schedule=None, warmup_epochs=0)

# What is not of CC is as in configs/digits_<method>.py, which says why.
CC = dict(name="cc", views=("strong", "strong"), projection=128, tau_instance=0.5, tau_cluster=1.0, instance=1.0)
CC |= dict(cluster=1.0, self_term=False, instance_split="")
ANCHOR = dict(name="anchor", views=("plain", "strong", "strong"), projection=128, tau=0.5, alpha=1.0, instance=20.0)
ANCHOR |= dict(cluster=0.1, anchor=0.1, anchor_loss="q0_q", stop_gradient=True, space="projection", scale=5.0)
ANCHOR |= dict(init_epoch=None, init_features="eval", init_sample=0)
TCC = dict(name="tcc", views=("plain", "strong", "strong"), features=128, assignment="cosine", scale=10.0, alpha=0.5)
TCC |= dict(tau=0.5, lam=0.8, samples=1, momentum=0.99, entropy="mutual", sharpness=0.3, consistency=0.0)
TCC |= dict(init_epoch=None, queue_clusters=100, queue_instances=None, augment_clusters=True, aggregate="soft")
MEANS = dict(name="mmdc", views=("centre", "strong"), rotation_view="crop", assignment=True, rotation=True, group=None)
MEANS |= dict(means="one_hot", dim=0, sigma=0.0, refine_epoch=None, sobel=False)

METHODS = dict(  # method, optimizer, views, the view for evaluation
    cc=(CC, ADAM, dict(plain=dict(policy="plain"), strong=SIMCLR), "plain"),
    anchor=(ANCHOR, ADAM, dict(plain=dict(policy="plain"), strong=SIMCLR), "plain"),
    tcc=(TCC, ADAM, dict(plain=dict(policy="standardised", **COLOUR), strong=MOCO), "plain"),
    mmdc=(MEANS, SGD, dict(centre=dict(policy="centre_crop", crop=None), strong=MMDC, crop=BARE), "centre"),
)


def get_config(method="cc"):
    if method not in METHODS:
        raise ValueError(f"{method!r} is no method of this file; choose one of {', '.join(METHODS)}")
    chosen, optim, views, shown = METHODS[method]
    return ConfigDict(
        dict(
            seed=0,
            clusters=20,
            # labels="folders" where the first level is a folder for each class: for scores only; dir: your images
            data=dict(name="folder", splits=dict(train="all"), labels="", size=None, stored=0, dir="", max_bad=0.01),
            views=views,
            net=dict(depth=18, stem="imagenet", width=None),
            method=chosen,
            optim=optim,
            train=dict(epochs=None, batch_size=None, log_every=10),
            eval=dict(view=shown, paper_view=shown, held_out=0),
            checkpoint=dict(every=5, keep=3),
            report=dict(looks=20, sample=2000, page=True),
        )
    )
