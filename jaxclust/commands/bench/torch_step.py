"""The training step that `against` compares with: the same ResNet in PyTorch, as users write it. Imports no JAX."""

import time
from collections.abc import Callable

import torch
from torch import nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
STEMS = {"imagenet": (7, 2, 3), "cifar": (3, 1, None), "mmdc": (3, 1, 2)}  # convolution, its stride, max pool

_step: Callable[[], torch.Tensor]  # of this process
_synchronize: Callable[[], None]  # waits for the device


class Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width))
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity()
        if before != width or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


def resnet(depth: int, stem: str, width: int) -> nn.Sequential:
    """Images f32[B, 3, H, W] -> f32[B, 8 width]."""
    size, stride, pool = STEMS[stem]
    layers = [nn.Conv2d(3, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.MaxPool2d(pool, 2, 1)] if pool else []
    before = width
    for stage, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            layers.append(Block(before, width * 2**stage, 2 if stage and not block else 1))
            before = width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def prepare(depth: int, stem: str, width: int, pixels: int, batch: int, threads: int, device: str) -> int:
    """Makes the step that `steps` takes, in float32 on "cpu" and in bfloat16 on "cuda"; returns how many parameters."""
    global _step, _synchronize
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # tries cuDNN's kernels, as XLA does
    net = resnet(depth, stem, width).to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, pixels, pixels).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = net(images).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    _step, _synchronize = step, torch.cuda.synchronize if device == "cuda" else torch.cpu.synchronize
    return sum(p.numel() for p in net.parameters())


def steps(count: int) -> float:
    """Takes `count` steps; returns the seconds."""
    start = time.perf_counter()
    for _ in range(count):
        _step()
    _synchronize()
    return time.perf_counter() - start
