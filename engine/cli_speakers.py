"""The commands for known speakers: enroll, and speakers list, show, rename, merge, remove, relabel.

Clips are embedded here, in the process of the command. What is stored is changed by the daemon when one runs for this
store, and else by the command itself.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from engine.cli_daemon import print_json
from engine.config import Config
from engine.errors import ConfigError, ExitCode
from stages.errors import SluiceError, StoreError
from transport.requests import SpeakersRequest

Action = Literal["enroll", "list", "show", "rename", "merge", "remove", "relabel"]

ANSWER_SECONDS = 330.0  # the daemon gives up on its consumer a little before that
TURNS_SHOWN = 8  # of one voice, on the terminal; --json has more
WRONG_REQUEST = ("clip-", "name-")  # codes of errors that are the request's: exit code 2


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers. commands: from `add_subparsers`."""
    enroll = commands.add_parser("enroll", parents=[common], help="teach it a voice, by name, from clips")
    enroll.add_argument("name", metavar="NAME")
    enroll.add_argument("clips", nargs="+", metavar="CLIP", help="sound or video in which only this person speaks")
    _finish(enroll, "enroll")
    speakers = commands.add_parser("speakers", help="who is enrolled, and where they speak")
    actions = speakers.add_subparsers(required=True, metavar="ACTION")
    _finish(actions.add_parser("list", parents=[common], help="everybody who is enrolled"), "list")
    _finish(_named(actions.add_parser("show", parents=[common], help="where and when somebody speaks")), "show")
    rename = _named(actions.add_parser("rename", parents=[common], help="give somebody another name"))
    rename.add_argument("into", metavar="NEW", help="the new name")
    _finish(rename, "rename")
    merge = _named(actions.add_parser("merge", parents=[common], help="make one of two who are the same person"))
    merge.add_argument("into", metavar="INTO", help="the name that stays")
    _finish(merge, "merge")
    remove = _named(actions.add_parser("remove", parents=[common], help="forget a voice and its name"))
    _finish(remove, "remove")
    relabel = actions.add_parser("relabel", parents=[common], help="compare every voice with everybody again")
    _finish(relabel, "relabel")


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME")
    return parser


def _finish(parser: argparse.ArgumentParser, action: Action) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_run, action=action)


# --- commands: everything heavy is imported where it is used ----------------------------------------------------------


def _run(options: argparse.Namespace, config: Config) -> ExitCode:
    try:
        request = _request(options, config)
        body = _ask_daemon(config, request)
        if body is None:
            body = _alone(config, request)
    except SluiceError as error:
        if error.code.startswith(WRONG_REQUEST):
            raise ConfigError(error.code, error.message) from error
        raise
    if options.json:
        print_json(body)
    else:
        _SHOW[body["action"]](body, options)
        for note in [*body.get("notes", ()), *_of_model(request.model)]:
            print(f"note: {note}", file=sys.stderr)
    return ExitCode.OK


def _request(options: argparse.Namespace, config: Config) -> SpeakersRequest:
    name, into = getattr(options, "name", None), getattr(options, "into", None)
    for text in (name, into):
        _check_text(text or "")
    model = model_label(config)
    if options.action != "enroll":
        return SpeakersRequest(action=options.action, model=model, name=name, into=into, now=time.time())
    from engine.enrolment import voice_samples
    from stages.profiles import clean_name

    clean_name(name)  # before minutes are spent on the clips
    _check_store(config, may_be_missing=True)
    clips = [os.fsencode(clip) for clip in options.clips]
    samples = voice_samples(config, clips, lambda line: print(line, file=sys.stderr))
    return SpeakersRequest(action="enroll", model=model, name=name, samples=samples, now=time.time())


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("name-bad", f"{name!a} is not valid UTF-8") from error


def model_label(config: Config) -> str:
    """Which voice model is set. Raises ConfigError "model-off", ModelError when it is not on this machine."""
    from stages.registry import OFF, identify, resolve

    source = config.models.voice
    if source == OFF:
        raise ConfigError("model-off", f'models.voice = "{OFF}": speakers are told apart by it; set it to a model')
    path = resolve("voice", source, Path(config.models.directory))
    return identify("voice", source, path).info("voice", 0).label


def _ask_daemon(config: Config, request: SpeakersRequest) -> dict[str, Any] | None:
    """None: no daemon runs for this store."""
    from engine.client import ask

    return ask(config, request, ANSWER_SECONDS)


def _alone(config: Config, request: SpeakersRequest) -> dict[str, Any]:
    """The same on the store itself."""
    from stages.qdrant import open_store
    from stages.speakers import perform
    from transport.messages import SpeakersTask

    task = SpeakersTask(
        request=0,
        action=request.action,
        model=request.model,
        name=request.name,
        into=request.into,
        samples=request.samples,
        now=request.now,
    )
    _check_store(config, may_be_missing=request.action == "enroll")
    read_only = request.action in ("list", "show")
    store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only)
    try:
        return perform(store, task)
    finally:
        store.close()


def _check_store(config: Config, may_be_missing: bool) -> None:
    """Whether the store can be had, unless a daemon has it."""
    from engine.presence import find
    from stages.qdrant import open_store

    if find(config) is None:
        try:
            open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True).close()
        except StoreError as error:
            if not (may_be_missing and error.code == "store-missing"):
                raise


# --- what is printed --------------------------------------------------------------------------------------------------


def _show_enrolled(body: dict[str, Any], options: argparse.Namespace) -> None:
    who = body["speaker"]
    begin = f"enrolled {who['name']}" if body["added"] else f"nothing new: {who['name']} has"
    colon = ":" if body["added"] else ""
    print(f"{begin}{colon} {_clips(who)}; {_called(who)} ({_threshold(body)})")


def _show_renamed(body: dict[str, Any], options: argparse.Namespace) -> None:
    print(f"{options.name} is {body['speaker']['name']} now: {_called(body['speaker'])}")


def _show_merged(body: dict[str, Any], options: argparse.Namespace) -> None:
    who = body["speaker"]
    print(f"{options.name} is part of {who['name']} now: {_clips(who)}; {_called(who)} ({_threshold(body)})")


def _show_removed(body: dict[str, Any], options: argparse.Namespace) -> None:
    print(f"removed {body['removed']}: {_voices(body['changed'])} changed {_their(body['changed'])} name")


def _show_relabelled(body: dict[str, Any], options: argparse.Namespace) -> None:
    changed = f"{_voices(body['changed'])} changed {_their(body['changed'])} name"
    print(f"looked at {_voices(body['looked_at'])}: {changed} ({_threshold(body)})")


def _show_list(body: dict[str, Any], options: argparse.Namespace) -> None:
    width = max((len(who["name"]) for who in body["speakers"]), default=0)
    for who in body["speakers"]:
        print(f"{who['name']:{width}}  {_voices(who)}, {_clock(who['seconds'])}; enrolled from {_clips(who)}")
    if not body["speakers"]:
        print("nobody is enrolled")
    unnamed = body["unnamed"]
    if unnamed["voices"]:
        print(f"without a name: {_voices(unnamed)}, {_clock(unnamed['seconds'])}")
    if body["speakers"]:
        print(_threshold(body))
    for model, names in body["other_models"].items():
        print(f"enrolled with {model}, another voice model, and unknown to this one: {', '.join(names)}")


def _show_speaker(body: dict[str, Any], options: argparse.Namespace) -> None:
    who = body["speaker"]
    print(f"{who['name']}: {_voices(who)}, {_clock(who['seconds'])}")
    for voice in body["appearances"]:
        print(f"  {voice['path']}: {_clock(voice['seconds'])}, match {voice['match_score']:.2f}")
        print(f"    {_turns(voice)}")
    more = who["voices"] - len(body["appearances"])
    if more:
        print(f"  and {_count(more, 'voice')} more, that speak less")
    print(f"enrolled from {_clips(who)}")
    for clip in body["clips"]:
        print(f"  {clip['path']}: {clip['seconds']:.0f} s, {_day(clip['added'])}")
    print("history")
    for event in body["history"]:
        print(f"  {_day(event['at'])} {event['event']}: {event['detail']}")


_SHOW: dict[str, Callable[[dict[str, Any], argparse.Namespace], None]] = {
    "enroll": _show_enrolled,
    "list": _show_list,
    "show": _show_speaker,
    "rename": _show_renamed,
    "merge": _show_merged,
    "remove": _show_removed,
    "relabel": _show_relabelled,
}


def _count(number: int, noun: str) -> str:
    """1 voice, 2 voices, 1,204 voices."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _clips(who: dict[str, Any]) -> str:
    return f"{_count(who['clips'], 'clip')}, {who['clip_seconds']:.0f} s of speech"


def _voices(facts: dict[str, Any]) -> str:
    return f"{_count(facts['voices'], 'voice')} in {_count(facts['videos'], 'video')}"


def _called(who: dict[str, Any]) -> str:
    return f"{_voices(who)} {'is' if who['voices'] == 1 else 'are'} called {who['name']}"


def _their(facts: dict[str, Any]) -> str:
    return "its" if facts["voices"] == 1 else "their"


def _threshold(body: dict[str, Any]) -> str:
    """threshold 0.43, from 1,204 scores of this archive"""
    threshold = body["threshold"]
    if threshold["source"] == "archive":
        return f"threshold {threshold['value']:.2f}, from {_count(threshold['scores'], 'score')} of this archive"
    return f"threshold {threshold['value']:.2f}, the default: this archive has too few voices to make its own"


def _of_model(label: str) -> list[str]:
    untrained = "the voice model is untrained, made to try things out: it tells nobody apart"
    return [untrained] if label.endswith("(untrained)") else []


def _turns(voice: dict[str, Any]) -> str:
    from engine.progress import clock

    shown = [f"{clock(start)}-{clock(end)}" for start, end in voice["turns"][:TURNS_SHOWN]]
    more = len(voice["turns"]) - len(shown) + voice["more_turns"]
    return ", ".join(shown) + (f", and {more:,} more" if more else "")


def _clock(seconds: float) -> str:
    from engine.progress import clock

    return f"{clock(seconds)} of speech"


def _day(timestamp: str) -> str:
    """2026-09-21 14:13 from ISO 8601."""
    return timestamp[:16].replace("T", " ")
