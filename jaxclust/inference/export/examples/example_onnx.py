"""Sorts photos with ONNX Runtime and Pillow: python example_onnx.py PHOTO ..., or images as README.md says in a .npy"""

import json
from pathlib import Path

import onnxruntime
import photos

names = json.loads(Path(__file__).with_name("clusters.json").read_text(encoding="utf-8"))
predictor = onnxruntime.InferenceSession(Path(__file__).with_name("predictor.onnx"))
files, images = photos.given()
for file, p, cluster, _ in zip(files, *predictor.run(None, {"images": images})):
    print(file, cluster, names[str(cluster)], p[list(names).index(str(cluster))], sep="\t")
