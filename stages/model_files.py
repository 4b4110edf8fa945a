"""What a model directory holds, told from a few small files and without importing any model library."""

import fnmatch
import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from stages.base import Role
from stages.errors import ModelError

MARKER = "sluice.json"  # in directories that `models tiny` made
WEIGHTS = ("*.safetensors", "*.bin", "*.ckpt")
BLOCK_BYTES = 64 * 1024
BLOCKS = 16  # of each file in the revision: 1 MiB is read of a file of any size

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
MODEL = ("config.json", "model*.safetensors", "model*.safetensors.index.json")
MODEL_PICKLED = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")

# What each role reads. The same choice serves pulling, sizes and revisions, so that files which nobody reads (weights
# for other frameworks, ONNX exports) are neither fetched nor counted.
READS: dict[str, tuple[str, ...]] = {
    "image": (*MODEL, *MODEL_PICKLED, "preprocessor_config.json", *TOKENIZER),
    "text": (
        *MODEL,
        *MODEL_PICKLED,
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_*_config.json",
        *TOKENIZER,
        *(f"[0-9]_*/{name}" for name in (*MODEL, *MODEL_PICKLED, *TOKENIZER)),
    ),
    "speech": ("config.json", "model.bin", "tokenizer.json", "vocabulary.*", "preprocessor_config.json"),
    "voice": ("hyperparams.yaml", "embedding_model.ckpt"),
}

# What a directory must hold for its role, beside weights and a tokenizer.
NEEDS: dict[str, tuple[str, ...]] = {
    "image": ("config.json", "preprocessor_config.json"),
    "text": ("modules.json", "config.json"),
    "speech": ("model.bin", "config.json", "tokenizer.json"),  # without the last, faster-whisper asks the hub for one
    "voice": ("hyperparams.yaml", "embedding_model.ckpt"),
}

WANTED: dict[str, str] = {
    "image": "a CLIP or SigLIP model in transformers' format",
    "text": "a sentence-transformers model (with modules.json)",
    "speech": "a Whisper model converted for CTranslate2 (with model.bin)",
    "voice": "a speechbrain ECAPA-TDNN model (with hyperparams.yaml and embedding_model.ckpt)",
}


def files_read(role: Role, names: Iterable[str]) -> list[str]:
    """Of the files of a repository or directory (relative, with /), those that the role reads, sorted.

    Where a folder has safetensors, its pickled weights are left out: the same numbers, in a format that can run code.
    """
    wanted = sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in READS[role]))
    safe = {str(PurePosixPath(name).parent) for name in wanted if name.endswith(".safetensors")}
    return [
        name
        for name in wanted
        if not (str(PurePosixPath(name).parent) in safe and PurePosixPath(name).match("pytorch_model*"))
    ]


def local_files(role: Role, path: Path) -> list[str]:
    """`files_read` of a directory."""
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return files_read(role, (name for name in names if not name.startswith(".")))


def size_bytes(role: Role, path: Path) -> int:
    """Bytes on disk of what the role reads."""
    return sum((path / name).stat().st_size for name in local_files(role, path))


def revision(role: Role, path: Path) -> str:
    """12 hexadecimal digits that change when the weights or the configuration change.

    SHA-256 over name, size and content of every file that the role reads; of a file larger than 1 MiB, over 16 blocks
    of 64 KiB at even distances, the first and the last among them. It takes milliseconds for 3 GB, and would miss only
    a change that keeps every sampled block: no training does that.
    """
    digest = hashlib.sha256()
    for name in local_files(role, path):
        file = path / name
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as content:
            for offset in _block_offsets(size):
                content.seek(offset)
                digest.update(content.read(BLOCK_BYTES))
    return digest.hexdigest()[:12]


class Files:
    """The files that a model was loaded from, as they were then."""

    def __init__(self, role: Role, path: Path) -> None:
        self._role: Role = role
        self.path = path
        self._revision = revision(role, path)

    def check(self) -> None:
        """Raises ModelError (model-changed) when they have changed: other weights would speak under the old name."""
        if revision(self._role, self.path) != self._revision:
            raise ModelError(
                "model-changed",
                f"models.{self._role}: {self.path} has changed since the model was loaded from it: start again, "
                "so that the new weights have their own name",
            )


def _block_offsets(size: int) -> list[int]:
    """Where to read blocks: back to back in a small file, evenly spread from first to last in a large one."""
    if size <= BLOCKS * BLOCK_BYTES:
        return list(range(0, size, BLOCK_BYTES))
    return [i * (size - BLOCK_BYTES) // (BLOCKS - 1) for i in range(BLOCKS)]


def is_untrained(path: Path) -> bool:
    """Whether the directory says that its weights are random.

    Raises ModelError (model-damaged) when it says something unreadable: better no vectors than unlabelled ones.
    """
    file = path / MARKER
    if not file.is_file():
        return False
    try:
        return bool(json.loads(file.read_text("utf-8"))["untrained"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "model-damaged", f"{file} does not say whether the model is trained: run `models tiny`"
        ) from error


def check_names(role: Role, source: str, names: Iterable[str]) -> None:
    """Tell from file names alone whether this can be a model for the role.

    Raises ModelError (model-wrong-kind, one line) naming what is lacking.
    """
    names = set(names)
    lacking = [name for name in NEEDS[role] if name not in names]
    if not lacking and not any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in WEIGHTS):
        lacking = ["weights (model.safetensors)"]
    if not lacking and role == "image" and not names & {"tokenizer.json", "vocab.json", "spiece.model"}:
        lacking = ["a tokenizer (tokenizer.json)"]
    if lacking:
        raise ModelError(
            "model-wrong-kind",
            f'models.{role} = "{source}" lacks {", ".join(lacking)}; it must be {WANTED[role]}',
        )


def check_kind(role: Role, source: str, path: Path) -> None:
    """Tell from names and small files whether `path` holds a model for the role.

    Raises ModelError (model-wrong-kind, one line: what was found, what is needed).
    """
    found = describe(path)
    if not _is_wanted(role, path):
        raise ModelError(
            "model-wrong-kind", f'models.{role} = "{source}" ({path}) holds {found}; it must be {WANTED[role]}'
        )
    check_names(role, source, local_files(role, path))


def describe(path: Path) -> str:
    """What a directory holds, in a few words for people."""
    if spec := ctranslate2_spec(path):
        return f"a CTranslate2 model ({spec})"
    if (path / "hyperparams.yaml").is_file():
        return "a speechbrain model"
    if (path / "modules.json").is_file():
        return "a sentence-transformers model"
    if model_type := _config(path).get("model_type"):
        return f"a {model_type} model in transformers' format"
    return "no model that is known here"


def ctranslate2_spec(path: Path) -> str | None:
    """Name of the specification in a CTranslate2 model.bin ("WhisperSpec"); None when there is no such file.

    The file begins with a 32-bit version and the name: a 16-bit length that counts the final zero, then its bytes
    (ctranslate2/specs/model_spec.py).
    """
    file = path / "model.bin"
    if not file.is_file():
        return None
    with file.open("rb") as content:
        head = content.read(6)
        if len(head) < 6:
            return None
        _version, length = struct.unpack("<IH", head)
        name = content.read(length).rstrip(b"\0")
    return name.decode("ascii", "replace") if name.isalnum() and length < 64 else None


def _is_wanted(role: Role, path: Path) -> bool:
    match role:
        case "image":
            return _config(path).get("model_type") in ("clip", "siglip")
        case "text":
            return (path / "modules.json").is_file()
        case "speech":
            return ctranslate2_spec(path) == "WhisperSpec"
        case "voice":
            file = path / "hyperparams.yaml"
            return file.is_file() and "ECAPA_TDNN" in file.read_text("utf-8", "replace")


def _config(path: Path) -> dict[str, Any]:
    """config.json of a directory; empty when it has none that can be read."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
