"""The fused neurons: what the plain ones compute, proven without a GPU by Triton's interpreter and compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from respike.common.errors import SettingError
from respike.zoo.nn import lif
from respike.zoo.nn.lif import LIF, LIFSettings, kernels_for, set_lif_backend

ROOT = Path(__file__).parents[3]
PARTS = ("neurons", "empty", "operators", "network", "wrong")


def import_kernels():
    return pytest.importorskip("respike.zoo.nn.lif_triton", reason="no Triton 3.3 or later", exc_type=ImportError)


@pytest.fixture(scope="module")
def interpreted():
    """What each part of `fused_lif` said, from one process."""
    import_kernels()
    command = [sys.executable, "-m", "tests.zoo.nn.fused_lif", *PARTS]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    return run.stdout + run.stderr


@pytest.mark.parametrize(
    "part", PARTS, ids=["spikes_and_gradients", "no_group", "compiled", "in_a_network", "another_neuron_is_told_apart"]
)
def test_the_kernels_compute_what_the_plain_neurons_do(interpreted, part):
    assert f"{part} agrees" in interpreted, interpreted


@pytest.mark.parametrize("learns_tau", [False, True])
@pytest.mark.parametrize("pointer", ["*bf16", "*fp32"])
def test_the_kernels_become_machine_code_for_an_h100(learns_tau, pointer, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    lif_triton = import_kernels()
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"NUM_STEPS": 3, "IS_SOFT": False, "BLOCK": 1024} | ({} if learns_tau else {"learned": None})
    kinds = {"num_neurons": "i32", "grad_rate": "*fp32", "learned": "*fp32"}
    kinds |= dict.fromkeys(("rate", "threshold", "slope", "height"), "fp32") | dict.fromkeys(constants, "constexpr")
    for kernel in (lif_triton._forward_kernel, lif_triton._backward_kernel):
        signature = {name: kinds.get(name, pointer) for name in kernel.arg_names}
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=places)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert len(compiled.asm["cubin"]) > 1000


def test_the_plain_neurons_are_what_one_gets_unasked():
    assert LIF(LIFSettings()).backend == "torch"


def test_the_backend_decides_which_code_runs(monkeypatch):
    import_kernels()
    layer, current = LIF(LIFSettings()), torch.zeros(3, 2)
    set_lif_backend(layer, "auto")
    assert kernels_for(current, 3, layer.settings, "auto") is None
    monkeypatch.setattr(lif, "_DEVICE_TYPE", "cpu")
    kernels = kernels_for(current, 3, layer.settings, "auto")
    assert kernels.__name__.endswith("lif_triton")
    assert kernels_for(current, 3, layer.settings, "torch") is None
    for unfit in ((current.double(), 3, LIFSettings()), (current, 33, LIFSettings()), (current, 3, OTHER)):
        assert kernels_for(*unfit, "triton") is None


OTHER = LIFSettings(surrogate="triangle", surrogate_alpha=1.0)


def test_what_cannot_be_had_is_refused_and_changes_nothing(monkeypatch):
    layer = LIF(OTHER)
    with pytest.raises(SettingError, match="choose from torch, triton, auto"):
        set_lif_backend(layer, "cupy")
    monkeypatch.setitem(sys.modules, "respike.zoo.nn.lif_triton", None)
    with pytest.raises(SettingError, match=r"no Triton 3.3 or later here"):
        set_lif_backend(layer, "triton")
    set_lif_backend(layer, "auto")
    assert kernels_for(torch.zeros(3, 2), 3, LIFSettings(), "auto") is None


def test_an_older_triton_is_as_good_as_none(monkeypatch):
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(triton, "__version__", "3.2.0")
    monkeypatch.delitem(sys.modules, "respike.zoo.nn.lif_triton", raising=False)
    monkeypatch.setattr(lif, "_kernels", None)
    with pytest.raises(SettingError, match=r"no Triton 3.3 or later here \(take torch, or install torch 2.7 or later"):
        set_lif_backend(LIF(LIFSettings()), "triton")


def test_a_surrogate_that_the_kernels_lack_is_named():
    import_kernels()
    layer = LIF(OTHER)
    with pytest.raises(SettingError, match="no surrogate gradient triangle"):
        set_lif_backend(layer, "triton")
    assert layer.backend == "torch"
