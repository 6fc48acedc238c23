"""Sorts images, uint8 [N, H, W, C] as README.md says, with ONNX Runtime alone: python example_onnx.py IMAGES.npy"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

names = json.loads(Path(__file__).with_name("groups.json").read_text(encoding="utf-8"))
predictor = onnxruntime.InferenceSession(Path(__file__).with_name("predictor.onnx"))
probabilities, groups, embedding = predictor.run(None, {"images": np.load(sys.argv[1])})
for row, (p, group) in enumerate(zip(probabilities, groups)):
    print(row, group, names[str(group)], p[list(names).index(str(group))], sep="\t")
