"""The Triton kernels against PyTorch, run by Triton's interpreter: no GPU, so numbers and indexing only, no speed."""

import importlib.util
import os
import subprocess
import sys

import pytest

MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

# Each prints the largest difference from PyTorch. The interpreter must be chosen before Triton is imported.
PATCHES = """
from worker.runtime.plugin.tower_kernels import patches
tiles, table = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.randn(3, 256).half()
numbers = torch.stack([table[c][tiles[..., c].long()] for c in range(3)], 1).float()
expected = torch.nn.functional.unfold(numbers, 14, stride=14).transpose(1, 2).reshape(-1, 588)
got = patches(tiles, table, 14).float()
print(float((got[:, :588] - expected).abs().max() + got[:, 588:].abs().max()))
"""
ADD_NORM = """
from worker.runtime.plugin.tower_kernels import add_norm
x, delta, weight, bias = (torch.randn(*shape).half() for shape in ((6, 1152), (6, 1152), (1152,), (1152,)))
total = x + delta
summed = x.clone()
got = add_norm(summed, delta, weight, bias, 1e-6).float()
norm = lambda rows: torch.nn.functional.layer_norm(rows.float(), (1152,), weight.float(), bias.float(), 1e-6)
alone = add_norm(x.clone(), None, weight, bias, 1e-6).float()
assert torch.equal(summed, total)
print(float(max((got - norm(total)).abs().max(), (alone - norm(x)).abs().max())))
"""
GATED = """
from worker.runtime.plugin.gated_product import KernelTiling, fits, gated_product
x, weight = torch.randn(200, 128).half() * 0.3, torch.randn(512, 128).half() * 0.3
gate, up = ((x.float() @ half.float().T).half().float() for half in weight.split(256))
assert fits(256, 128) and not fits(250, 128) and not fits(256, 100)
got = gated_product(x, weight, KernelTiling(group=2)).float()
print(float((got - torch.nn.functional.silu(gate) * up).abs().max()))
"""


@pytest.mark.parametrize(
    ("program", "most"),
    [(PATCHES, 0.0), (ADD_NORM, 4e-3), (GATED, 8e-3)],  # float16 near 4 and 8 is 4e-3 and 8e-3 apart
    ids=["patches", "add and norm", "gated product"],
)
def test_a_kernel_computes_what_pytorch_does(program: str, most: float) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import torch\ntorch.manual_seed(0)\n{program}"],
        capture_output=True, text=True, timeout=110, env=environment, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert float(run.stdout.split()[-1]) <= most
