"""Untrained speaker embedders in speechbrain's layout: a small one, and, for benches, one as large as the real one."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of an ECAPA-TDNN; the defaults are those of the tiny one."""

    channels: int = 64  # of the first four blocks
    last_channels: int = 192  # of the block that gathers them
    attention_channels: int = 32
    dtype: str = "float32"  # of the file; the model computes in float32 whatever it is


HYPERPARAMS = """\
# The layout of speechbrain/spkrec-ecapa-voxceleb.
n_mels: 80
out_n_neurons: 10
pretrained_path: .

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [{channels}, {channels}, {channels}, {channels}, {last_channels}]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: {attention_channels}
    lin_neurons: 192

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: !ref <out_n_neurons>

mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        mean_var_norm_emb: !ref <mean_var_norm_emb>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


def build_tiny_ecapa(directory: Path, seed: int = 0) -> None:
    """Write a small ECAPA-TDNN in speechbrain's layout, about 1 MB. The same seed gives the same bytes."""
    build_ecapa(directory, Sizes(), seed)


def hyperparams(sizes: Sizes) -> str:
    """The text of hyperparams.yaml."""
    return HYPERPARAMS.format(
        channels=sizes.channels, last_channels=sizes.last_channels, attention_channels=sizes.attention_channels
    )


def build_ecapa(directory: Path, sizes: Sizes, seed: int = 0) -> None:
    """Write an ECAPA-TDNN of any size. The same sizes and seed give the same bytes."""
    from stages.speaker_model import build_network, prepare_speechbrain, read_architecture

    prepare_speechbrain()
    import torch
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hyperparams.yaml").write_text(hyperparams(sizes), "utf-8")
    architecture = read_architecture(directory / "hyperparams.yaml")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture)
        classifier = Classifier(architecture.lin_neurons, out_neurons=10)
    network.to(getattr(torch, sizes.dtype))
    statistics = {"count": 1, "glob_mean": torch.zeros(192), "glob_std": torch.ones(192)}
    torch.save(network.state_dict(), directory / "embedding_model.ckpt")
    torch.save(classifier.state_dict(), directory / "classifier.ckpt")
    torch.save(statistics, directory / "mean_var_norm_emb.ckpt")
    labels = "".join(f"'made-up-{i}' => {i}\n" for i in range(10))
    (directory / "label_encoder.txt").write_text(labels + "================\n'starting_index' => 0\n", "utf-8")
