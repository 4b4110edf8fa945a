"""The import rules of the layout: run.py → engine → stages → transport, and which module may import which library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.pins import constraints, normal

ROOT = Path(__file__).parents[1]
OURS = ("engine", "stages", "transport", "benches", "tests", "run")
MODEL_LIBRARIES = {
    "torch", "torchaudio", "transformers", "sentence_transformers", "speechbrain", "ctranslate2", "faster_whisper",
}  # fmt: skip
QDRANT_LIBRARIES = {"qdrant_client", "qdrant_edge"}

# Who imports a model library, and why. Everything else stays light: a supervisor of 60 MB, decoders without CUDA.
MODEL_MODULES = {
    "engine/cuda_device.py": "reads and releases the device's memory",
    "engine/real_devices.py": "says which device there is, or why there is none",
    "engine/simulated_device.py": "raises torch's out-of-memory error",
    "stages/ctranslate2_model.py": "devices, types and weights of the speech model",
    "stages/image_model.py": "the frame embedder",
    "stages/lanes.py": "gives each lane its share of torch's threads",
    "stages/log_mel.py": "the speech model's features",
    "stages/prompts.py": "the speech model's tokenizers",
    "stages/speaker_model.py": "the voice embedder",
    "stages/speech_encoder.py": "its encoder",
    "stages/speech_model.py": "the speech model",
    "stages/text_model.py": "the text embedder",
    "stages/tiny.py": "builds tiny models",
    "stages/tiny_speech.py": "builds tiny models",
    "stages/tiny_tokenizers.py": "builds tiny models",
    "stages/tiny_voice.py": "builds tiny models",
    "stages/torch_model.py": "what the torch models share",
    "stages/torchaudio_shim.py": "imports torchaudio beside any build of torch",
    "stages/weights.py": "moves weights between the device and host memory",
}


def modules(*packages: str) -> list[str]:
    """Our files, as paths from the root."""
    return sorted(str(file.relative_to(ROOT)) for package in packages for file in (ROOT / package).glob("*.py"))


@cache
def imports(module: str) -> frozenset[str]:
    """Everything that a file imports anywhere in it, by full name."""
    return frozenset(_imported(ast.parse((ROOT / module).read_text("utf-8"))))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, "imports are absolute"
                yield from (f"{module}.{name.name}" for name in names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name))]):
                yield name


def tops(module: str) -> set[str]:
    """The packages that a file imports from."""
    return {name.partition(".")[0] for name in imports(module)}


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import a.b\nfrom c.d import e\ndef f():\n    import g\n    importlib.import_module('h.i')\n"
    assert set(_imported(ast.parse(source))) == {"a.b", "c.d.e", "g", "h.i"}


@pytest.mark.parametrize("module", modules("transport"))
def test_transport_imports_nothing_of_ours(module: str) -> None:
    assert tops(module) & set(OURS) <= {"transport"}


@pytest.mark.parametrize("module", modules("stages"))
def test_stages_know_no_processes_and_no_sockets(module: str) -> None:
    assert tops(module) & set(OURS) <= {"stages", "transport"}
    assert not tops(module) & {"zmq", "multiprocessing"}


@pytest.mark.parametrize("module", [*modules("engine"), "run.py"])
def test_engine_imports_no_benches_and_no_tests(module: str) -> None:
    assert not tops(module) & {"benches", "tests", "run"}


def test_run_imports_the_engine_alone() -> None:
    assert tops("run.py") & set(OURS) == {"engine"}


def test_only_the_listed_modules_import_model_libraries() -> None:
    found = {module for module in modules("engine", "stages", "transport") if tops(module) & MODEL_LIBRARIES}
    assert found == set(MODEL_MODULES)


def test_model_libraries_are_imported_inside_functions() -> None:
    """So that importing a module costs nothing, and each process pays for what it uses."""
    for module in MODEL_MODULES:
        tree = ast.parse((ROOT / module).read_text("utf-8"))
        at_top = {
            name.partition(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in _imported(node)
        }
        if module != "stages/tiny_speech.py":  # itself imported inside a function, by stages/tiny.py
            assert not at_top & MODEL_LIBRARIES, module


def test_only_the_store_imports_a_qdrant_library() -> None:
    found = {module for module in modules("engine", "stages", "transport") if tops(module) & QDRANT_LIBRARIES}
    assert found
    assert all(module.startswith("stages/qdrant") for module in found)


@pytest.mark.parametrize(
    "name",
    ["engine.cli", "engine.supervisor", "engine.ingest", "engine.consumer", "engine.worker", "engine.producer"],
)
def test_process_imports_no_model_library(name: str) -> None:
    """Neither directly nor through others, when it starts."""
    script = f"import sys, {name}; print(*sorted({MODEL_LIBRARIES!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_supervisor_imports_no_store() -> None:
    script = f"import sys, engine.supervisor; print(*sorted({QDRANT_LIBRARIES!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_imported_library_is_pinned() -> None:
    distributions, pinned = packages_distributions(), constraints()
    for module in modules("engine", "stages", "transport", "benches", "tests"):
        for top in tops(module) - set(OURS) - set(sys.stdlib_module_names):
            names = {normal(name) for name in distributions[top]}
            assert names & set(pinned), f"{module} imports {top}, which constraints.txt does not pin"


def test_files_are_small() -> None:
    """About 300 lines; the one list of all messages may be longer."""
    counted = {module: len((ROOT / module).read_text("utf-8").splitlines()) for module in modules(*OURS[:3])}
    assert [module for module, lines in counted.items() if lines > 350] == []
