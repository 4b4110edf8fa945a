"""Prompts, hotwords and translation, on tiny Whispers."""

from pathlib import Path

import pytest

from stages.base import SpeechInput
from stages.options import SpeechOptions
from stages.prompts import LONGEST_PROMPT
from stages.speech_model import LONGEST_TEXT, SpeechModel
from stages.tiny_speech import build_tiny_whisper
from tests.conftest import TinyModels
from tests.whispers import Recorder, load, refusal, said, scripted, sound


@pytest.fixture(scope="module")
def path(tiny_models: TinyModels) -> Path:
    return tiny_models["whisper"]


@pytest.fixture(scope="module")
def model(path: Path) -> SpeechModel:
    return load(path)


def prompts_of(model: SpeechModel, monkeypatch: pytest.MonkeyPatch, batch: list[SpeechInput]) -> list[list[int]]:
    recorder = Recorder(model._whisper.model)
    monkeypatch.setattr(model._whisper, "model", recorder)
    model.run(batch)
    return recorder.prompts


def test_prompt_and_hotwords_come_before_the_start_of_every_window(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SpeechOptions(temperatures=(0.0,), initial_prompt=" Mr. Nguyễn: ", hotwords="Kasai")
    model = load(path, options=options)
    batch = [SpeechInput(sound(20, seed), code) for seed, code in enumerate(("en", "fr"))]
    prompts = prompts_of(model, monkeypatch, batch)
    tokenizer = model._whisper.hf_tokenizer
    before = tokenizer.encode("<|startofprev|> Kasai Mr. Nguyễn:", add_special_tokens=False).ids
    assert [tokenizer.decode(prompt[len(before) :], skip_special_tokens=False) for prompt in prompts] == [
        f"<|startoftranscript|><|{code}|><|transcribe|><|notimestamps|>" for code in ("en", "fr")
    ]
    assert [prompt[: len(before)] for prompt in prompts] == [before, before]


def test_a_prompt_does_not_make_windows_depend_on_their_neighbours(path: Path) -> None:
    """The tiny Whisper says less behind a prompt, for it counts its place in the sound from the first token."""
    model = load(path, options=SpeechOptions(temperatures=(0.0,), initial_prompt="A b."))
    batch = [SpeechInput(sound(seconds, seed), code) for seed, (seconds, code) in enumerate(((30, "en"), (20, "de")))]
    together = model.run(batch)
    assert all(transcript.segments for transcript in together)
    assert [said(t) for t in together] == [said(model.run([item])[0]) for item in batch]
    plain = load(path).run(batch)
    assert [said(t) for t in together] != [said(t) for t in plain]


def test_ctranslate2_wants_the_start_at_one_place_in_all_windows(model: SpeechModel) -> None:
    """Which is why there is one prompt for all."""
    encoded = model._encode([sound(3)] * 2)
    start = model._prompts.of("en")
    with pytest.raises(ValueError, match="same position"):
        model._whisper.model.generate(encoded, [start, [model._tokenizers["en"].sot_prev, 300, *start]])


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_prompt_is_none(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    model = load(path, options=SpeechOptions(temperatures=(0.0,), initial_prompt=text, hotwords=text))
    (prompt,) = prompts_of(model, monkeypatch, [SpeechInput(sound(2), "en")])
    assert prompt == load(path)._prompts.of("en")
    assert len(prompt) == 4


def test_the_longest_prompt_fits_and_leaves_room_for_text(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte is one token of the tiny Whisper, and a space begins the prompt."""
    model = load(path, options=SpeechOptions(initial_prompt="x" * (LONGEST_PROMPT - 1)))
    recorder = Recorder(model._whisper.model)
    monkeypatch.setattr(model._whisper, "model", recorder)
    model.probe(2)
    assert [len(prompt) for prompt in recorder.prompts] == [LONGEST_PROMPT + 5] * 2
    assert recorder.texts == [LONGEST_TEXT - 3] * 2
    model.run([SpeechInput(sound(5), None)])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (SpeechOptions(initial_prompt="x" * LONGEST_PROMPT), "are 224 tokens long, the model takes 223: shorten them"),
        (SpeechOptions(initial_prompt="x" * 150, hotwords="y" * 100), "are 252 tokens long"),
        (SpeechOptions(hotwords="<|en|> names"), "take the model's own marks, such as <|en|>, out of the text"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(path: Path, options: SpeechOptions, reason: str) -> None:
    error = refusal(path, options=options)
    assert error.code == "model-prompt"
    assert "speech.initial_prompt and speech.hotwords" in error.message
    assert reason in error.message


# --- translation ----------------------------------------------------------------------------------------------------


def test_a_translation_is_in_english_and_says_what_was_spoken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(path, options=SpeechOptions(temperatures=(0.0,), task="translate"))
    batch = [SpeechInput(sound(4, seed), code) for seed, code in enumerate(("zh", "en"))]
    prompts = prompts_of(model, monkeypatch, batch)
    assert all(model._tokenizers["zh"].translate in prompt for prompt in prompts)
    transcripts = model.run(batch)
    assert [(t.language, t.translated_from, t.spoken_language) for t in transcripts] == [
        ("en", "zh", "zh"), ("en", "en", "en"),
    ]  # fmt: skip


def test_words_of_a_translation_are_those_of_english(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese has no spaces, so a transcript of it is cut at every character; a translation from it is not."""
    said_words = {}
    for task in ("transcribe", "translate"):
        model = load(path, options=SpeechOptions(temperatures=(0.0,), task=task))
        scripted(model, monkeypatch, [(-0.1, "made up")])
        (transcript,) = model.run([SpeechInput(sound(4), "zh")])
        said_words[task] = [word.text for segment in transcript.segments for word in segment.words]
    assert said_words == {"transcribe": list("madeup"), "translate": ["made", "up"]}


def test_a_transcript_was_not_translated(model: SpeechModel) -> None:
    (transcript,) = model.run([SpeechInput(sound(2), "fr")])
    assert (transcript.language, transcript.translated_from, transcript.spoken_language) == ("fr", None, "fr")


def test_an_english_model_does_not_translate(tmp_path: Path) -> None:
    build_tiny_whisper(tmp_path, multilingual=False)
    error = refusal(tmp_path, options=SpeechOptions(task="translate", language="de"))
    assert error.code == "model-task"
    assert 'speech.task = "translate": this model knows only English' in error.message
