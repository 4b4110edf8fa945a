"""Which stage is named for what was measured, and which setting."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bottleneck import STAGES, ModelUse, Usage, verdict
from engine.config import Config, load_config

CARD = "cuda:0"
CALM = Usage(
    seconds=600.0, decode=0.5, credit=0.3, idle=0.2, decoders=4, decoded_per_second=30.0,
    models=(ModelUse("image", 0.2, 40.0), ModelUse("speech", 0.3, 2.0)), waiting=0.4, writing=0.1,
    points_per_second=40.0, cores=8, cores_used={"decoder": 2.0, "engine": 1.0}, cores_busy=3.2, device=CARD,
)  # fmt: skip


def usage(**facts: Any) -> Usage:
    return replace(CALM, **facts)


def named(found: Usage, *settings: str) -> tuple[str, str]:
    """The stage, and what to turn."""
    said = verdict(found, load_config(settings=settings))
    return said.stage, said.setting


def models(**busy: float) -> tuple[ModelUse, ...]:
    return tuple(ModelUse(role, share, 100 * share) for role, share in busy.items())


DECODING = {"decode": 0.95, "credit": 0.03, "idle": 0.02, "waiting": 0.6}
LISTENING = {"models": models(image=0.1, speech=0.8), "waiting": 0.05, "credit": 0.8, "decode": 0.2, "idle": 0.0}
LOOKING = {**LISTENING, "models": models(image=0.8, speech=0.1)}
STORING = {"writing": 0.95, "blocked": 0.6, "waiting": 0.1, "results_fill": 0.9}
CROWDED = {"changing": 0.4, "waiting": 0.1, "models": models(image=0.3, speech=0.2)}


@pytest.mark.parametrize(
    ("facts", "settings", "stage", "turns"),
    [
        (DECODING, (), "decoders", ("more decode.processes (they are 4; 4.8 of 8 cores are free)", "keyframes")),
        (DECODING, ("decode.fps=5",), "decoders", ("a lower decode.fps (it is 5)",)),
        (DECODING, ("decode.sampling=keyframes", 'decode.skip="none"'), "decoders", ('decode.skip = "auto"',)),
        ({**DECODING, "cores_busy": 8.0}, ("decode.sampling=keyframes",), "decoders", ("more cores",)),
        (LISTENING, (), "speech", ("fewer speech.temperatures (there are 6)", "a smaller models.speech", "GPU")),
        (LISTENING, ("speech.captions=ignore",), "speech", ('speech.captions = "prefer"',)),
        (LISTENING, ("speech.beam_size=5", "speech.temperatures=[0]"), "speech", ("speech.beam_size = 1 (it is 5)",)),
        ({**LOOKING, "host_fill": 0.9}, (), "image", ("keyframes", "a higher engine.host_mb, for larger batches")),
        (LOOKING, ("models.image_dtype=float32",), "image", ("a smaller models.image", 'models.image_dtype = "auto"')),
        (LOOKING, ("decode.sampling=keyframes",), "image", ("a smaller models.image",)),
        ({**LISTENING, "models": models(voice=0.9)}, (), "voice", ("a longer voice.hop_seconds (it is 1.5)",)),
        ({**LISTENING, "models": models(text=0.9), "device": "cpu"}, (), "text", ("a smaller models.text", "a GPU")),
        ({**LISTENING, "models": models(image=0.1)}, (), "engine", ("keyframes",)),
        (CROWDED, (), "models", ("a higher device.memory_gb", 'device.park = "host"', "a higher engine.host_mb")),
        (CROWDED, ("device.park=host",), "models", ("a higher device.memory_gb", "a higher engine.host_mb")),
        (STORING, (), "store", ("a higher store.batch_points (it is 256)", "a faster disk", "a Qdrant server")),
        (STORING, ("store.url=http://far:6333", "store.batch_points=2048"), "store", ("a server that is nearer",)),
        ({**STORING, "blocked": 0.0}, (), "store", ("store.batch_points",)),
        ({**STORING, "writing": 0.1}, (), "ledger", ("run.state",)),
        ({"store_away": "store-unreachable: no answer"}, (), "store", ("the store itself",)),
        ({"start_seconds": 900.0}, (), "start", ("more files in one run", "the daemon")),
        ({"credit": 0.6, "waiting": 0.6, "decode": 0.3, "idle": 0.1}, (), "credit", ("engine.host_mb (it is 256)",)),
        ({"idle": 0.7, "decode": 0.3, "credit": 0.0, "waiting": 0.8}, (), "files", ("more files in one run",)),
    ],
)  # fmt: skip
def test_each_stage_is_named_with_what_to_turn(
    facts: dict[str, Any], settings: tuple[str, ...], stage: str, turns: tuple[str, ...]
) -> None:
    found, setting = named(usage(**facts), *settings)
    assert found == stage
    places = [setting.find(turn) for turn in turns]
    assert -1 not in places, setting
    assert places == sorted(places), "the most promising comes first"


SHARED = {"device": "cpu", "cores": 2, "cores_busy": 2.0}


@pytest.mark.parametrize(
    ("used", "turns"),
    [
        ({"decoder": 1.4, "engine": 0.5}, "keyframes"),
        ({"decoder": 0.4, "engine": 1.5}, "fewer speech.temperatures"),
        ({"consumer": 1.4, "engine": 0.5}, "store.batch_points"),
        ({"supervisor": 1.4, "engine": 0.5}, "more cores"),
        ({"decoder": 0.2, "engine": 0.3}, "the machine to itself; or fewer speech.temperatures"),
    ],
)
def test_on_the_cpu_the_one_that_takes_most_of_busy_cores_is_to_be_made_cheaper(
    used: dict[str, float], turns: str
) -> None:
    found = usage(cores_used=used, **SHARED)
    stage, setting = named(found)
    assert stage == "processor"
    assert turns in setting
    assert named(replace(found, device=CARD))[0] != "processor", "beside a card, busy cores are the decoders'"
    assert named(replace(found, cores_busy=1.0, cores_used={"engine": 1.0}))[0] != "processor"


def test_the_sentence_says_who_has_the_processor() -> None:
    found = verdict(usage(cores_used={"decoder": 0.4, "engine": 1.1, "consumer": 0.01}, **SHARED), Config())
    assert found.sentence == (
        "The processor is the bottleneck: its 2 cores are 100 % busy (engine 1.1, other programs 0.5, decoder 0.4; the "
        "speech model is 60 % of its models' time)."
    )


def test_sentences_hold_the_figures_they_are_drawn_from() -> None:
    assert verdict(usage(**DECODING), Config()).sentence == (
        "The decoders are the bottleneck: they decode 95 % of their time, and the engine waits 60 % of its own."
    )
    assert verdict(usage(**LISTENING), Config()).sentence == (
        "The speech model is the bottleneck: it runs 80 % of the engine's time, at 100 items/s while it does; the "
        "decoders work 20 % of theirs."
    )


@pytest.mark.parametrize(
    ("shares", "stage"),
    [
        ({"decode": 0.95, "waiting": 0.2, "writing": 0.8}, "decoders"),
        ({"decode": 0.8, "waiting": 0.05, "writing": 0.8}, "image"),
        ({"decode": 0.8, "waiting": 0.2, "writing": 0.95}, "store"),
        ({"decode": 0.9, "waiting": 0.1, "writing": 0.9}, "store"),
        ({"decode": 0.9, "waiting": 0.1, "writing": 0.1}, "image"),
        ({"decode": 0.1, "idle": 0.75, "waiting": 0.7, "writing": 0.99}, "store"),
    ],
)
def test_of_several_busy_stages_the_busiest_is_named_and_else_the_later_one(
    shares: dict[str, float], stage: str
) -> None:
    assert named(usage(models=models(image=0.7), **shares))[0] == stage


def test_nothing_is_said_of_a_time_in_which_nothing_was_done() -> None:
    assert named(Usage(seconds=0.0)) == ("none", "")
    assert named(Usage(seconds=600.0, idle=1.0, waiting=1.0)) == ("none", "")


def test_where_no_stage_holds_the_others_up_none_is_named() -> None:
    found = verdict(CALM, Config())
    assert (found.stage, found.settings) == ("balanced", ())
    assert found.sentence.endswith("they work: decoders 50 %, engine 60 %, store 10 % of their time.")


shares = st.floats(0.0, 1.0)
some_models = st.lists(
    st.builds(ModelUse, st.sampled_from(["image", "speech", "text", "voice"]), shares, st.floats(0, 1e6)),
    max_size=4,
    unique_by=lambda model: model.role,
).map(tuple)
usages = st.builds(
    Usage, seconds=st.floats(0, 1e6), start_seconds=st.floats(0, 1e6), decode=shares, credit=shares, idle=shares,
    decoders=st.integers(1, 99), decoded_per_second=st.floats(0, 1e6), models=some_models, waiting=shares,
    blocked=shares, changing=shares, host_fill=shares, results_fill=shares, writing=shares,
    points_per_second=st.floats(0, 1e6), store_away=st.sampled_from(["", "refused"]), cores=st.integers(1, 256),
    cores_used=st.dictionaries(st.sampled_from(["decoder", "engine", "consumer", "supervisor"]), st.floats(0, 300)),
    cores_busy=st.floats(0, 300), device=st.sampled_from(["cpu", CARD]),
)  # fmt: skip


@given(usages, st.sampled_from(["fps", "keyframes"]))
def test_whatever_was_measured_there_is_one_verdict_in_one_line(found: Usage, sampling: str) -> None:
    said = verdict(found, load_config(settings=[f"decode.sampling={sampling}"]))
    assert said.stage in STAGES
    assert 0.0 <= said.share <= 1.0
    assert said.sentence.endswith(".")
    assert "\n" not in said.sentence + said.setting
    assert len(set(said.settings)) == len(said.settings)
    assert (said.settings == ()) <= (said.stage in ("none", "balanced", "engine"))


@given(usages)
def test_no_stage_is_named_that_the_others_did_not_wait_for(found: Usage) -> None:
    """The verdict is drawn from a share that is large, whatever else is."""
    said = verdict(found, Config())
    match said.stage:
        case "decoders":
            assert found.decode >= max(0.75, found.engine - 0.05, found.writing - 0.05)
        case "image" | "speech" | "text" | "voice":
            assert found.waiting + found.blocked <= 0.25
            assert found.busiest is not None
            assert said.share == found.busiest.busy
        case "store" if not found.store_away:
            assert found.writing >= 0.5
        case "files":
            assert min(found.idle, found.waiting) >= 0.4
        case "credit":
            assert min(found.credit, found.waiting) >= 0.4
