"""Steps beside PyTorch's: what can be tried without PyTorch, which is no dependency of the tests."""

import importlib.util

import pytest

from jaxclust import main
from jaxclust.commands.bench import against
from jaxclust.run.errors import ConfigError


def test_without_pytorch_it_says_what_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "torch" else find(name, *of))
    with pytest.raises(ConfigError, match=r"needs it: pip install torch"):
        main.main(["--mode=bench", "--against=torch"])


@pytest.mark.slow
def test_our_side_takes_steps_of_the_network_as_torchvision_counts_it():
    steps, parameters = against._prepared(against.Net(34, "imagenet", 64, 8, 2), "float32")
    assert parameters == 21_797_672 - 513_000  # without the last layer
    assert steps(2) > 0
