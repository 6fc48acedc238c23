"""What is read out of a program that was compiled for a GPU."""

import numpy as np
import pytest
from conftest import config_of

from jaxclust import main
from jaxclust.commands.bench import roofline
from jaxclust.run.errors import ConfigError

TARGET = """
gpu_device_info {
  core_count: 10
  memory_bandwidth: 1000000000
  clock_rate_ghz: 2
  cuda_compute_capability {
    major: 8
    minor: 6
  }
}
"""

CONV = 'window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv'
TURNS = 'backend_config={"known_trip_count":{"n":"7"}}'
PROGRAM = f"""HloModule jit_step

%fused_take (param_0: u8[1000,8], param_1: s32[5,1]) -> u8[5,8] {{
  %param_0 = u8[1000,8]{{1,0}} parameter(0)
  %param_1 = s32[5,1]{{1,0}} parameter(1)
  ROOT %gather.1 = u8[5,8]{{1,0}} gather(%param_0, %param_1), offset_dims={{1}}
}}

%body (p: (s32[], f32[4,6])) -> (s32[], f32[4,6]) {{
  %p = (s32[], f32[4,6]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %w = f32[4,6]{{1,0}} get-tuple-element(%p), index=1
  %copy.2 = f32[4,6]{{0,1}} copy(%w)
  ROOT %tuple.1 = (s32[], f32[4,6]{{1,0}}) tuple(%i, %copy.2)
}}

ENTRY %main.9 (x: bf16[2,8,8,16], w: bf16[32,3,3,16], pool: u8[1000,8], rows: s32[5,1]) -> bf16[2,8,8,16] {{
  %x = bf16[2,8,8,16]{{3,2,1,0}} parameter(0)
  %w.1 = bf16[32,3,3,16]{{3,2,1,0}} parameter(1)
  %pool = u8[1000,8]{{1,0}} parameter(2)
  %rows = s32[5,1]{{1,0}} parameter(3)
  %take.1 = u8[5,8]{{1,0}} fusion(%pool, %rows), kind=kLoop, calls=%fused_take
  %conv.1 = (bf16[2,8,8,32]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %w.1), {CONV}Forward"
  %y = bf16[2,8,8,32]{{3,2,1,0}} get-tuple-element(%conv.1), index=0
  %filter.1 = (bf16[32,3,3,16]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%x, /*index=1*/%y), {CONV}BackwardFilter"
  %zero = s32[] constant(0)
  %start = f32[4,6]{{1,0}} constant({{...}})
  %t = (s32[], f32[4,6]{{1,0}}) tuple(%zero, %start)
  %while.1 = (s32[], f32[4,6]{{1,0}}) while(%t), condition=%c, body=%body, {TURNS}
  %product.1 = f32[4,4]{{1,0}} dot(%start, %start), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}
  ROOT %input.1 = (bf16[2,8,8,16]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%y, %w.1), {CONV}BackwardInput"
}}
"""


def test_kernels_are_counted_with_what_they_multiply_and_move():
    found = {k.name: k for k in roofline.kernels(PROGRAM)}
    assert found.keys() == {"take", "conv", "filter", "copy", "product", "input"}
    x, y, w = 2 * 8 * 8 * 16, 2 * 8 * 8 * 32, 32 * 3 * 3 * 16
    for name in ("conv", "filter", "input"):
        assert found[name].flops == 2 * y * 3 * 3 * 16
        assert (found[name].dtype, found[name].bytes) == ("bf16", 2 * (x + y + w))
    assert found["take"].bytes == 5 * 8 + 5 * 4 + 5 * 8  # of what it takes rows of, these rows alone
    assert (found["copy"].times, found["copy"].bytes) == (7, 2 * 4 * 4 * 6)
    assert (found["product"].flops, found["product"].dtype) == (2 * 4 * 4 * 6, "f32")


def test_the_roofline_is_the_larger_of_computing_and_moving_kernel_by_kernel():
    gpu = roofline.gpu(TARGET)
    assert gpu.flops == {"f32": 256 * 10 * 2e9, "bf16": 512 * 10 * 2e9}
    row = roofline.row(PROGRAM, gpu)
    assert max(row["compute"], row["memory"]) <= row["roofline"] <= row["compute"] + row["memory"]
    np.testing.assert_allclose(row["memory"] / 1e3, row["gib"] * 2**30 / 1e9)
    assert row["kernels"] == 5 + 7
    assert row["moved"][0]["makes"] in {"bf16[2,8,8,32]", "bf16[32,3,3,16]", "bf16[2,8,8,16]"}


@pytest.mark.parametrize(("wrong", "said"), [("core_count", "core_count"), ("minor: 6", r"has 8\.7")])
def test_a_target_that_says_too_little_is_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        roofline.gpu(TARGET.replace(wrong, {"minor: 6": "minor: 7"}.get(wrong, "")))


def test_without_a_target_it_says_that_it_needs_one():
    with pytest.raises(ConfigError, match="--roofline needs --target=FILE"):
        main.main(["--mode=bench", "--roofline", f"--config={config_of('mmdc')}"])
