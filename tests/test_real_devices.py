"""Which device is taken, why there is none, and what doctor says of it."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pynvml
import pytest
import torch

import engine.nvml
from engine.config import Config, DeviceOptions
from engine.cuda_device import CudaDevice
from engine.doctor import Finding, examine
from engine.errors import ConfigError
from engine.host_device import HostDevice
from engine.nvml import driver_version
from engine.real_devices import cuda_trouble, open_device, prepare_allocator, resolve_device, torch_build
from tests.fake_cuda import Card, Machine, install

ROOT = Path(__file__).parents[1]
# What torch says (c10/cuda/CUDAFunctions.cpp), shortened at the end.
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading"
)
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from"
)
NO_DEVICE = "No CUDA GPUs are available"
MISMATCH = (
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that "
    "might have already set an error? Error 803: system has unsupported display driver / cuda driver combination"
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Two cards."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    return install(monkeypatch, [Card(uuid="aaaa"), Card(uuid="bbbb")])


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_device(name)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "resolved"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_names_where_there_is_cuda(machine: Machine, name: str, resolved: str) -> None:
    assert resolve_device(name) == resolved


def test_auto_without_cuda(machine: Machine) -> None:
    machine.cuda.init_error = RuntimeError(NO_DRIVER)
    assert (resolve_device("auto"), resolve_device("cpu")) == ("cpu", "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cudafoo", "cuda:-1", "CPU", ""])
def test_names_that_are_none(machine: Machine, name: str) -> None:
    assert refusal(name) == f'device.name = "{name}": expected "auto", "cpu", "cuda" or "cuda:N"'


def test_a_device_beyond_the_last(machine: Machine) -> None:
    assert refusal("cuda:2") == 'device.name = "cuda:2", but the last device is cuda:1'


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            TOO_OLD,
            "the NVIDIA driver is too old (it supports CUDA 12.4, this torch is built for CUDA 13.0): "
            "update the driver",
        ),
        (NO_DRIVER, "there is no NVIDIA driver: install one (in a container: start it with the GPU)"),
        (NO_DEVICE, "the driver shows no device: look at nvidia-smi"),
        (MISMATCH, f"CUDA does not start ({MISMATCH}): look at nvidia-smi"),
    ],
)
def test_why_there_is_no_cuda(machine: Machine, said: str, cause: str) -> None:
    machine.cuda.init_error = RuntimeError(said)
    assert refusal("cuda") == f'device.name = "cuda", but {cause}, or set device.name = "cpu"'


def test_devices_that_are_hidden(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    machine.cuda.init_error = RuntimeError(NO_DEVICE)
    assert 'no device (CUDA_VISIBLE_DEVICES is "7"): look at nvidia-smi, or set' in refusal("cuda:0")


def test_a_torch_built_without_cuda(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert f"this torch ({torch.__version__}) is built without CUDA: install its CUDA build" in refusal("cuda")
    assert torch_build() == f"{torch.__version__}, built without CUDA"


def test_torch_s_warning_is_not_repeated(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns once of the driver; the reason is in our own line."""

    def warn() -> bool:
        warnings.warn(f"CUDA initialization: {TOO_OLD}", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warn)
    machine.cuda.init_error = RuntimeError(TOO_OLD)
    assert "too old" in str(cuda_trouble())


def test_opening(machine: Machine) -> None:
    assert isinstance(open_device("cpu"), HostDevice)
    device = open_device("cuda:1")
    assert isinstance(device, CudaDevice)
    assert device.name == "cuda:1"
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_user_s_allocator_settings_stand(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    prepare_allocator()
    assert os.environ[name] == "max_split_size_mb:128"
    assert len([key for key in os.environ if key.startswith("PYTORCH_") and key.endswith("ALLOC_CONF")]) == 1


def test_torch_takes_the_setting_after_its_import() -> None:
    """It reads the environment when it first needs the allocator's settings."""
    script = (
        "import torch; from engine.real_devices import prepare_allocator; prepare_allocator();"
        "print(torch._C._accelerator_getAllocatorSettings())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.endswith("ALLOC_CONF")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "expandable_segments:True"


def test_the_driver_s_version(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "version"
    monkeypatch.setattr(engine.nvml, "KERNEL_MODULE", module)
    assert driver_version() == "580.95.05"
    machine.nvml.error = pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert driver_version() is None
    module.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n")
    assert driver_version() == "535.183.01"
    module.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\nGCC: 12\n")
    assert driver_version() == "570.86.10"


def findings(name: str, tmp_path: Path) -> dict[str, Finding]:
    """What doctor finds of the device."""
    config = Config(device=DeviceOptions(name=name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = [finding for finding in examine(config) if finding.what in ("torch", "device", "device memory")]
    assert len({finding.what for finding in found}) == len(found)
    return {finding.what: finding for finding in found}


def test_doctor_shows_the_device(machine: Machine, tmp_path: Path) -> None:
    found = findings("auto", tmp_path)
    assert found["torch"].detail == f"{torch.__version__}, built for CUDA 13.0; NVIDIA driver: 580.95.05"
    assert found["device"] == Finding("device", "ok", "cuda:0, NVIDIA Test 16GB, 15.7 of 16.0 GB free")
    assert found["device memory"].state == "ok"


def test_doctor_says_what_nvml_withholds(machine: Machine, tmp_path: Path) -> None:
    machine.nvml.figures = "hidden"
    found = findings("cuda:1", tmp_path)["device memory"]
    assert found.state == "warning"
    assert found.detail.startswith("NVML gives no figure for this process on cuda:1")


def test_doctor_warns_of_a_card_that_is_left_unused(machine: Machine, tmp_path: Path) -> None:
    """auto falls back to the CPU, and a run would only be slow."""
    machine.cuda.init_error = RuntimeError(TOO_OLD)
    found = findings("auto", tmp_path)["device"]
    assert found.state == "warning"
    assert "GB free; the NVIDIA driver is too old (it supports CUDA 12.4" in found.detail
    assert findings("cpu", tmp_path)["device"].state == "ok"
    assert findings("cuda", tmp_path)["device"].state == "problem"


def test_doctor_without_a_driver(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.nvml, "KERNEL_MODULE", tmp_path / "none")
    monkeypatch.setattr(torch.version, "cuda", None)
    machine.nvml.error = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    found = findings("auto", tmp_path)
    assert found["torch"].detail.endswith("built without CUDA; NVIDIA driver: none")
    assert found["device"].state == "ok"
    assert found["device"].detail.startswith("cpu, ")
