"""Loading within a budget, on a simulated device with small real models: who is on it at the end, what was measured,
what is remembered; and what is said when it cannot be.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.budget import GIB
from engine.config import Config, load_config
from engine.errors import ConfigError, ExitCode, StartError
from engine.loading import Loaded, Loader
from engine.model_commands import check
from engine.needs import CPU_PROFILE_GB, PROFILES, estimate_bytes, too_small
from engine.runner import Runner
from engine.simulated_device import BLOCK_BYTES, SimulatedDevice, SimulatedModel
from engine.simulation import MIB
from stages.options import ModelOptions
from stages.registry import resolve
from tests.runs import run_cli, settings_for

# Weights, and what an item takes, in MB. Without other words: a card of 1 GB whose context takes 100 MB.
CARD = "total_gb = 1.0\ncontext_mb = 100\n"


def costs(**of: tuple[float, float]) -> str:
    """[costs.ROLE] sections: weights, item."""
    return "".join(
        f"[costs.{role}]\nweights_mb = {weights}\nbatch_mb = 0\nitem_mb = {item}\n"
        for role, (weights, item) in of.items()
    )


@pytest.fixture
def configured(tiny_models: Any, tmp_path: Path) -> Callable[..., Config]:
    """A configuration of pictures and voices, which load fast, on a simulated card with these costs."""

    def configured(card: str, *more: str) -> Config:
        file = tmp_path / "card.toml"
        file.write_text(card)
        quiet = ("models.speech=off", "models.text=off")
        simulated = ("device.name=simulated", f"device.simulation={file}", "device.memory_share=1")
        return load_config(settings=[*settings_for(tiny_models, tmp_path), *simulated, *quiet, *more])

    return configured


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every probe that is run: role, items."""
    seen: list[tuple[str, int]] = []
    probe = SimulatedModel.probe

    def counted(model: SimulatedModel, count: int) -> None:
        seen.append((model.info.role, count))
        probe(model, count)

    monkeypatch.setattr(SimulatedModel, "probe", counted)
    return seen


def resident(runner: Runner) -> set[str]:
    return set(runner.turns.residency.resident)


def loaded(config: Config) -> Loaded:
    return Loader(config).load()


# --- what is measured -------------------------------------------------------------------------------------------------


def test_weights_overhead_and_items_are_measured(configured: Callable[..., Config]) -> None:
    runner = loaded(configured(CARD + costs(image=(200, 4), voice=(100, 10)))).runner
    assert runner.budget.total_bytes == GIB
    assert runner.budget.fixed_bytes == {"image": 200 * MIB, "voice": 100 * MIB}
    assert runner.budget.overhead_bytes == 100 * MIB
    for role, item in (("image", 4), ("voice", 10)):
        length = runner.models[role].probe_length
        assert runner.budget.costs[role].expect(8, length) == 8 * item * MIB
    assert resident(runner) == {"image", "voice"}


def test_probes_grow_to_the_batch_that_is_set_and_stop_where_the_next_would_not_fit(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    loaded(configured(CARD + costs(image=(200, 4), voice=(100, 60)), "engine.image_batch=16"))
    assert probes == [*(("image", n) for n in (1, 2, 4, 8, 16)), *(("voice", n) for n in (1, 2, 4, 8))]


def test_without_time_for_it_nothing_is_measured(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    runner = loaded(configured(CARD, "device.calibrate_seconds=0")).runner
    assert probes == []
    assert runner.budget.costs["image"].rows == {}


def test_the_voice_model_is_measured_with_windows_as_long_as_are_set(configured: Callable[..., Config]) -> None:
    runner = loaded(configured(CARD, "voice.window_seconds=5", "device.calibrate_seconds=0")).runner
    assert runner.models["voice"].probe_length == 5 * 16_000


# --- who is on the device ---------------------------------------------------------------------------------------------


def test_models_that_crowd_each_other_make_way_and_each_is_measured(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    """Together 900 MB of 1024: above the share where batches are halved."""
    runner = loaded(configured(CARD + costs(image=(400, 4), voice=(400, 10)), "engine.voice_batch=4")).runner
    assert resident(runner) == {"voice"}
    assert runner.budget.fixed_bytes == {"image": 400 * MIB, "voice": 400 * MIB}
    assert runner.budget.overhead_bytes == 100 * MIB
    assert {role for role, _ in probes} == {"image", "voice"}


def test_a_model_that_does_not_load_beside_the_others_loads_without_them(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    """700 + 250 + 100 MB are more than there are: loading itself runs out of memory."""
    runner = loaded(configured(CARD + costs(image=(700, 4), voice=(250, 10)), "engine.voice_batch=4")).runner
    assert resident(runner) == {"voice"}
    assert runner.budget.fixed_bytes == {"image": 700 * MIB, "voice": 250 * MIB}
    assert runner.budget.overhead_bytes == 100 * MIB
    assert ("voice", 4) in probes


def test_a_model_of_which_no_item_fits_beside_the_others_is_measured_without_them(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    """After both have loaded 324 MB are left, and one voice window takes 400."""
    runner = loaded(configured(CARD + costs(image=(400, 4), voice=(200, 400)))).runner
    assert resident(runner) == {"voice"}
    assert runner.budget.costs["voice"].expect(1, runner.models["voice"].probe_length) == 400 * MIB
    assert runner.budget.costs["voice"].failures == {}
    assert [count for role, count in probes if role == "voice"] == [1, 1]


def test_who_was_parked_comes_back_and_works(configured: Callable[..., Config]) -> None:
    runner = loaded(configured(CARD + costs(image=(400, 4), voice=(400, 10)))).runner
    frame = np.zeros((224, 224, 3), np.uint8)
    (vector,) = runner.run("image", [frame])
    assert vector.shape == (64,)
    assert "image" in resident(runner)
    assert isinstance(runner.device, SimulatedDevice)
    assert runner.device.highest_bytes <= GIB


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_what_was_measured_is_used_at_the_next_start(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    config = configured(CARD + costs(image=(200, 4), voice=(100, 10)))
    first = loaded(config).runner
    probed = len(probes)
    second = loaded(config).runner
    assert probed > 0
    assert len(probes) == probed, "nothing is measured again"
    assert {role: cost.rows for role, cost in second.budget.costs.items()} == {
        role: cost.rows for role, cost in first.budget.costs.items()
    }
    assert second.budget.costs["image"].evidence == first.budget.costs["image"].evidence


def test_the_batch_that_proved_worth_it_is_remembered(configured: Callable[..., Config]) -> None:
    config = configured(CARD)
    loader = Loader(config)
    runner = loader.load().runner
    runner.tuners["image"].size = 128
    loader.save(runner, at_once=True)
    assert loaded(config).runner.tuners["image"].size == 128


def test_learned_costs_are_written_once_a_minute_at_most(configured: Callable[..., Config], tmp_path: Path) -> None:
    now = [0.0]
    loader = Loader(configured(CARD), clock=lambda: now[0])
    runner = loader.load().runner
    file = tmp_path / "state" / "calibration.json"
    file.unlink()
    now[0] = 59.0
    loader.save(runner)
    assert not file.exists()
    now[0] = 60.0
    loader.save(runner)
    assert file.exists()


def test_other_weights_are_measured_anew(
    configured: Callable[..., Config], probes: list[tuple[str, int]], clip: Path
) -> None:
    more = (f"models.image={clip}", "models.voice=off")
    loaded(configured(CARD, *more))
    probed = len(probes)
    weights = clip / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    loaded(configured(CARD, *more))
    assert len(probes) == 2 * probed


def test_another_simulated_cost_is_measured_anew(
    configured: Callable[..., Config], probes: list[tuple[str, int]]
) -> None:
    loaded(configured(CARD + costs(image=(200, 4)), "models.voice=off"))
    probed = len(probes)
    runner = loaded(configured(CARD + costs(image=(200, 5)), "models.voice=off")).runner
    assert len(probes) == 2 * probed
    assert runner.budget.costs["image"].expect(1, 0) == 6 * MIB  # whole blocks of 2 MB


# --- bad input: the calibration file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b'{"version": 999, "models": {}}', "another version"),
        (b'{"version": 1, "models": {"a": {"batch": "many"}}}', "cannot be read"),
        (b'{"version": 1', "cannot be read"),
        (b"[1, 2]", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_calibration_file_that_is_of_no_use_is_said_and_replaced(
    configured: Callable[..., Config], tmp_path: Path, content: bytes, word: str
) -> None:
    file = tmp_path / "state" / "calibration.json"
    file.parent.mkdir()
    file.write_bytes(content)
    config = configured(CARD, "models.voice=off")
    (note,) = loaded(config).notes
    assert word in note
    assert str(file) in note
    assert "\n" not in note
    assert json.loads(file.read_bytes())["version"] == 1
    assert loaded(config).notes == ()


def test_a_state_directory_that_cannot_be_written_costs_one_note(
    configured: Callable[..., Config], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    loader = Loader(configured(CARD, "models.voice=off", f"run.state={file}"))
    started = loader.load()
    (note,) = started.notes
    assert f"{file / 'calibration.json'} cannot be written" in note
    assert "run.state" in note
    assert started.runner.budget.costs["image"].rows, "what was measured serves this run all the same"
    loader.save(started.runner, at_once=True)
    assert "cannot be written" not in capfd.readouterr().err


def test_a_state_directory_that_fails_later_costs_one_line(
    configured: Callable[..., Config], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loader = Loader(configured(CARD, "models.voice=off"))
    runner = loader.load().runner
    (tmp_path / "state").rename(tmp_path / "gone")
    (tmp_path / "state").touch()
    for _ in range(2):
        loader.save(runner, at_once=True)
    assert capfd.readouterr().err.count("cannot be written") == 1


# --- bad input: budgets -----------------------------------------------------------------------------------------------


def test_a_model_that_does_not_even_load_is_named_with_its_size_and_a_profile(
    configured: Callable[..., Config],
) -> None:
    with pytest.raises(StartError) as caught:
        loaded(configured(CARD + costs(image=(900, 4), voice=(100, 10)), "device.memory_gb=0.6"))
    assert caught.value.code == "budget-too-small"
    assert "models.image" in caught.value.message
    assert "needs about 0.98 GB by its files" in caught.value.message  # 100 + 900 MB
    assert "the budget is 0.60 GB (device.memory_gb)" in caught.value.message
    assert "give it more with device.memory_gb (1.0 GB are to be had)" in caught.value.message
    assert "configs/cpu.toml" in caught.value.message, "no card profile fits into 1 GB"
    assert "\n" not in caught.value.message


def test_a_model_with_room_for_its_weights_alone_is_named_with_what_it_needs(
    configured: Callable[..., Config],
) -> None:
    card = "total_gb = 4.0\ncontext_mb = 100\n" + costs(image=(800, 300))
    with pytest.raises(StartError, match=r"models\.image .* needs more than 1\.00 GB with one item, and") as caught:
        loaded(configured(card, "device.memory_gb=1", "models.voice=off"))
    assert "take configs/gpu-4gb.toml" in caught.value.message


def test_what_was_measured_with_a_larger_budget_is_said_with_a_smaller_one(
    configured: Callable[..., Config],
) -> None:
    card = "total_gb = 4.0\ncontext_mb = 100\n" + costs(image=(800, 300))
    loaded(configured(card, "device.memory_gb=2", "models.voice=off"))
    with pytest.raises(StartError, match=r"models\.image .* needs 1\.18 GB with one item, and the budget is 1\.00 GB"):
        loaded(configured(card, "device.memory_gb=1", "models.voice=off"))


def test_a_model_that_needs_more_than_its_files_say_is_not_said_to_fit() -> None:
    error = too_small("text", "a/b", GIB, "files", budget_bytes=2 * GIB, reach_bytes=2 * GIB, setting="x", on_cpu=False)
    assert "needs more than 2.00 GB while it loads" in error.message


@pytest.mark.parametrize(
    ("reach_gb", "on_cpu", "profile"),
    [
        (79.0, False, "configs/gpu-80gb.toml"),
        (22.0, False, "configs/gpu-24gb.toml"),
        (3.8, False, "configs/gpu-4gb.toml"),
        (3.1, False, "configs/cpu.toml, which needs no card"),
        (5.0, True, "configs/cpu.toml,"),
    ],
)
def test_the_profile_that_is_named_is_one_whose_budget_can_be_had(reach_gb: float, on_cpu: bool, profile: str) -> None:
    reach_bytes = round(reach_gb * GIB)
    error = too_small(
        "text", "a/b", 99 * GIB, "measured", budget_bytes=GIB, reach_bytes=reach_bytes, setting="x", on_cpu=on_cpu
    )
    assert f"(x): take {profile}" in error.message


def test_where_nothing_fits_a_smaller_model_is_all_that_is_left() -> None:
    error = too_small("text", "a/b", 99 * GIB, "files", budget_bytes=GIB, reach_bytes=GIB, setting="x", on_cpu=True)
    assert error.message.endswith("(x): set models.text to a smaller model")


def test_without_device_memory_gb_the_share_is_named(configured: Callable[..., Config]) -> None:
    with pytest.raises(StartError, match=r"budget is 0\.50 GB \(device\.memory_share, 0\.5 of what is free\)"):
        loaded(configured(CARD + costs(image=(900, 4)), "device.memory_share=0.5"))


def test_a_budget_larger_than_the_card_is_said_and_the_card_taken(configured: Callable[..., Config]) -> None:
    started = loaded(configured(CARD, "device.memory_gb=8", "models.voice=off"))
    (note,) = started.notes
    assert note == "device.memory_gb = 8, but only 1.0 GB are to be had on simulated: that is it"
    assert started.runner.budget.total_bytes == GIB


def test_a_budget_on_the_cpu_that_python_alone_exceeds(tiny_models: Any, tmp_path: Path) -> None:
    settings = settings_for(tiny_models, tmp_path, "models.speech=off", "models.text=off", "models.voice=off")
    config = load_config(settings=[*settings, "device.memory_gb=0.05"])
    with pytest.raises(StartError, match=r"models\.image .* needs .* GB with one item, and the budget is 0\.05"):
        loaded(config)


def test_the_profiles_that_are_named_are_there_with_these_budgets() -> None:
    configs = Path(__file__).parents[1] / "configs"
    for card, budget_gb in PROFILES.items():
        assert load_config(configs / f"gpu-{card}gb.toml").device.memory_gb == budget_gb
    assert load_config(configs / "cpu.toml").device.memory_gb == CPU_PROFILE_GB


# --- bad input: the simulation file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("total_gb = ", "Invalid value"),
        ("total_gb = -1", "total_gb"),
        ("total_gp = 4", "total_gp"),
        ("fragmentation = 1.0", "fragmentation"),
        ("[costs.picture]\nweights_mb = 1\nbatch_mb = 1\nitem_mb = 1", "picture"),
        ("[costs.image]\nweights_mb = 1", "batch_mb"),
        ("[costs.image]\nweights_mb = -1\nbatch_mb = 1\nitem_mb = 1", "$.costs"),
        ('[[faults]]\nrole = "picture"\nkind = "out-of-memory"', "picture"),
        ('[[faults]]\nrole = "image"\nkind = "fire"', "fire"),
    ],
)
def test_a_simulation_file_that_is_wrong_is_named_with_the_place(
    configured: Callable[..., Config], content: str, word: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Loader(configured(content))
    assert caught.value.code == "bad-config"
    assert "card.toml" in caught.value.message
    assert word in caught.value.message
    assert "\n" not in caught.value.message


def test_a_simulation_file_that_is_not_there(tmp_path: Path) -> None:
    config = load_config(settings=["device.name=simulated", f"device.simulation={tmp_path / 'none.toml'}"])
    with pytest.raises(ConfigError, match=r"device\.simulation = .*none\.toml: .*No such file"):
        Loader(config)


@pytest.mark.parametrize("setting", ["device.memory_gb=0", "device.memory_gb=-1", "device.memory_share=0"])
def test_a_budget_of_nothing_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        load_config(settings=[setting])


def test_tiers_that_fall_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"device\.release_at, halve_at and stop_at"):
        load_config(settings=["device.release_at=0.9", "device.halve_at=0.8"])


# --- what a model's files say of its size -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_the_size_on_the_device_is_told_from_safetensors(tiny_models: Any, dtype: str, size: int, family: str) -> None:
    from stages.image_model import ImageModel
    from stages.registry import identify

    path = tiny_models[family]
    options = ModelOptions(image=str(path), image_dtype=dtype)  # type: ignore[arg-type]
    model = ImageModel.load(path, identify("image", str(path), path), dtype=dtype, towers="image")
    tensors = [*model._model.parameters(), *model._model.buffers()]
    exact = sum(t.numel() * (size if t.is_floating_point() else t.element_size()) for t in tensors)
    assert estimate_bytes("image", options, "cpu") == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_where_queries_are_answered_the_text_tower_counts_too(tiny_models: Any, family: str) -> None:
    from stages.image_model import ImageModel
    from stages.registry import identify

    path = tiny_models[family]
    model = ImageModel.load(path, identify("image", str(path), path), towers="both")
    exact = sum(t.numel() * t.element_size() for t in [*model._model.parameters(), *model._model.buffers()])
    options = ModelOptions(image=str(path))
    whole = estimate_bytes("image", options, "cpu", serves_queries=True)
    assert whole == pytest.approx(exact, rel=0.01)
    assert whole > estimate_bytes("image", options, "cpu")


def test_precision_that_is_left_open_is_that_of_the_device(clip: Path) -> None:
    save_file({"a": torch.zeros(1000), "ids": torch.zeros(10, dtype=torch.int64)}, clip / "model.safetensors")
    options = ModelOptions(image=str(clip))
    assert estimate_bytes("image", options, "cpu") == 4000 + 80
    assert estimate_bytes("image", options, "cuda:0") == 2000 + 80


def test_pickled_and_converted_weights_are_told_from_their_files(tiny_models: Any) -> None:
    voice = resolve("voice", str(tiny_models["ecapa"]), Path()) / "embedding_model.ckpt"
    speech = resolve("speech", str(tiny_models["whisper"]), Path()) / "model.bin"
    options = ModelOptions(voice=str(tiny_models["ecapa"]), speech=str(tiny_models["whisper"]))
    assert estimate_bytes("voice", options, "cuda:0") == voice.stat().st_size
    assert estimate_bytes("speech", options, "cuda:0") == speech.stat().st_size
    int8 = ModelOptions(speech=str(tiny_models["whisper"]), speech_dtype="int8_float16")
    assert estimate_bytes("speech", int8, "cuda:0") == pytest.approx(speech.stat().st_size / 2, abs=1)


# --- through the command line -----------------------------------------------------------------------------------------


def test_a_budget_that_is_too_small_is_the_last_line(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    small = ("device.name=simulated", "device.memory_gb=0.5", "models.speech=off", "models.text=off")
    done = run_cli(["ingest", str(sample_video)], [*settings_for(tiny_models, tmp_path), *small])
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("sluice: budget-too-small: models.image")
    assert "configs/gpu-4gb.toml" in last


def test_what_should_be_known_of_the_device_is_said(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    """Notes of the engine process, on a run that goes well."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "calibration.json").write_text('{"version": 999}')
    large = ("device.name=simulated", "device.memory_gb=8", "models.speech=off", "models.text=off", "models.voice=off")
    done = run_cli(["ingest", str(sample_video)], [*settings_for(tiny_models, tmp_path), *large])
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert [("another version" in note, "device.memory_gb = 8" in note) for note in notes] == [
        (True, False),
        (False, True),
    ]


def test_models_are_checked_for_a_simulated_device(
    tiny_models: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a precision that the CPU has: int8_float16 is none."""
    simulated = ("device.name=simulated", "models.speech_dtype=int8_float16", "models.image=off", "models.voice=off")
    config = load_config(settings=[*settings_for(tiny_models, tmp_path), *simulated])
    assert check(config, as_json=False) == ExitCode.OK
    assert "speech" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_without_cuda_is_the_last_line(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    done = run_cli(["ingest", str(sample_video)], settings_for(tiny_models, tmp_path, "device.name=cuda"))
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert last.startswith("sluice: no-cuda: device.name")
    assert 'set device.name = "cpu"' in last


def test_blocks_are_small_beside_what_is_measured_here() -> None:
    """The simulated allocator rounds up to whole blocks; the costs above are even numbers of MB."""
    assert BLOCK_BYTES == 2 * MIB
