"""How right it all is, with the models at hand: `python -m benches.quality [DIRECTORY]`.

Indexes the labelled media of a directory (default: ../shared/media; benches/labels.py says what labels are) with
run.py, twice: words from the sound, and words from captions, which are made of the labels. Reads back what is stored:

words   word error rate of the transcripts, by Whisper's normaliser, where the words are known
turns   diarization error rate by NIST's definition: with a collar, without overlapping speech too, without a collar
names   people are enrolled from a part of what they say in one file: how much of all the rest has their name
search  how often an answer is among the first 1, 5, 10 hits

For each role the configured model is taken if it is here, and a tiny untrained one otherwise. Figures in which an
untrained model has a part are marked: they mean nothing. docs/quality.md tells more.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from benches.corpus import machine
from benches.labelled_index import EngineError, LabelledIndex, Payloads, Searches, chosen_models, write_clip
from benches.labels import Labels, LabelsError, labelled_media
from benches.measures import (
    Enrolment,
    Find,
    Question,
    Row,
    enrolments,
    excerpt,
    measure_names,
    measure_search,
    measure_turns,
    measure_words,
    questions,
)
from benches.quality_table import table
from benches.scoring import COLLAR_SECONDS
from engine.config import load_config
from stages.base import ROLES
from stages.errors import SluiceError
from stages.options import ModelOptions
from stages.registry import OFF
from stages.store import FRAMES, SPEECH, Store

SHARED = Path(__file__).parents[2] / "shared" / "media"
UNTRAINED = "(untrained)"  # the end of a model's label in the store


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    try:
        labels = labelled_media(arguments.directory)
        if not labels:
            raise LabelsError(f"{arguments.directory} holds no labelled media; docs/quality.md tells what labels are")
        with tempfile.TemporaryDirectory(prefix="quality-") as work:
            result = measure(labels, arguments, Path(work))
    except (OSError, LabelsError, EngineError, SluiceError) as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return 0


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=SHARED)
    for role in ROLES:
        parser.add_argument(f"--{role}", metavar="MODEL", help=f"as models.{role}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="as run.py's")
    parser.add_argument(
        "--collar", type=float, default=COLLAR_SECONDS, metavar="SECONDS", help="on each side of a border (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args(words)


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(labels: Sequence[Labels], arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Index, enroll, search, compare. Raises EngineError, LabelsError, SluiceError, OSError."""
    config = load_config(arguments.config, os.environ)
    given: dict[str, str | None] = {role: getattr(arguments, role) for role in ROLES}
    models = chosen_models(config.models, given, work / "models")
    options = ["--config", str(arguments.config.absolute())] if arguments.config is not None else []
    say("indexing, with words from the sound")
    index = LabelledIndex(work / "sound", models, captions=False, options=options)
    failed = index.build(labels)
    labels = [each for each in labels if each.medium.name not in failed]
    before = index.read()
    enrolled, refused = enroll_all(index, enrolments(labels), work)
    after = index.read()
    voice_models = labels_of(before.voices, "model")
    return {
        "machine": machine(),
        "not_indexed": failed,
        "words": section(measure_words(labels, before), labels_of(before.speech, "text_by")),
        "turns": {
            **section(measure_turns(labels, before, arguments.collar), voice_models),
            "collar_seconds": arguments.collar,
        },
        "names": {
            **section(measure_names(labels, after, enrolled), voice_models),
            "enrolled": {each.speaker: each.seconds for each in enrolled},
            "refused": refused,
        },
        "search": {"rows": search_all(index, captioned_index(work / "captions", labels, models, options), labels)},
    }


def captioned_index(
    directory: Path, labels: Sequence[Labels], models: ModelOptions, options: Sequence[str]
) -> LabelledIndex:
    """Nothing but captions, which are made of the labels: the speech model adds no words to those files."""
    say("indexing, with words from captions")
    only_text = msgspec.structs.replace(models, image=OFF, speech=OFF, voice=OFF)
    index = LabelledIndex(directory, only_text, captions=True, options=options)
    index.build([each for each in labels if each.utterances])
    return index


def enroll_all(
    index: LabelledIndex, planned: Sequence[Enrolment], work: Path
) -> tuple[list[Enrolment], dict[str, str]]:
    """Enroll everybody; who was, and why others were not."""
    done: list[Enrolment] = []
    refused: dict[str, str] = {}
    for number, each in enumerate(planned):
        say(f"enrolling {each.speaker} from {each.seconds:.0f} s of {each.medium.name}")
        clip = write_clip(each.medium, each.intervals, work / f"clip-{number}.wav")
        reason = index.enroll(each.speaker, [clip])
        if reason is None:
            done.append(each)
        else:
            refused[each.speaker] = reason
    return done, refused


def search_all(from_sound: LabelledIndex, from_captions: LabelledIndex, labels: Sequence[Labels]) -> list[Row]:
    """A row for each kind of question and of index in which there is something to find."""
    say("searching")
    searches = Searches(from_sound.models)
    said, parts = (questions(labels, lambda each: each.utterances, shorter) for shorter in (str, excerpt))
    seen = questions(labels, lambda each: each.shots)
    rows: list[Row] = []
    for index, name in ((from_captions, "captions"), (from_sound, "transcripts")):
        rows += search_rows(searches, index, SPEECH, f"{name}, by their whole text", said)
        rows += search_rows(searches, index, SPEECH, f"{name}, by some words of it", parts)
        rows += search_rows(searches, index, SPEECH, f"{name}, by some words of it, hybrid", parts, hybrid=True)
    return rows + search_rows(searches, from_sound, FRAMES, "frames, by what is seen", seen)


def search_rows(
    searches: Searches,
    index: LabelledIndex,
    collection: str,
    name: str,
    asked: Sequence[Question],
    hybrid: bool = False,
) -> list[Row]:
    """One row; none when there is nothing to ask, or nothing to find."""
    payloads = index.read().of_collection(collection)
    if not asked or not payloads:
        return []
    with closing(index.store()) as store:
        found = measure_search(asked, finder(searches, store, collection, hybrid))
    models = labels_of(payloads, "model") + labels_of(payloads, "text_by")
    return [{"name": name, "points": len(payloads), **found, "models": models, "untrained": untrained(models)}]


def finder(searches: Searches, store: Store, collection: str, hybrid: bool) -> Find:
    return lambda query, limit: searches.places(store, collection, query, limit, hybrid)


# --- what had a part in it --------------------------------------------------------------------------------------------


def labels_of(payloads: Payloads, key: str) -> list[str]:
    """The models that these points were made by."""
    return sorted({payload[key] for payload in payloads if key in payload})


def untrained(models: Iterable[str]) -> list[str]:
    return [model for model in models if model.endswith(UNTRAINED)]


def section(rows: list[Row], models: list[str]) -> dict[str, Any]:
    return {"models": models, "untrained": untrained(models), "rows": rows}


def say(text: str) -> None:
    """Progress, for people who wait."""
    print(f"quality: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
