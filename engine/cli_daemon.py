"""The commands that operate a daemon: status, retry, forget. They ask it when it runs, and work on their own if not."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from engine.config import Config
from engine.errors import ExitCode
from transport.requests import ForgetRequest, RetryRequest, StatusRequest

VIDEO_HELP = "its path, or its id, or the first digits of that (8 or more)"
SHOWN = 20  # videos that an answer names; --json names more


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers. commands: from `add_subparsers`."""
    _add_status(commands.add_parser("status", parents=[common], help="what the daemon is doing"))
    _add_retry(commands.add_parser("retry", parents=[common], help="try failed videos again"))
    _add_forget(commands.add_parser("forget", parents=[common], help="remove videos from the index"))


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object; with --watch one a second")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.set_defaults(command=_status)


def _add_retry(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("videos", nargs="*", default=[], metavar="VIDEO", help=VIDEO_HELP)
    which.add_argument("--all", action="store_true", help="all that failed, wholly or in part")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_retry)


def _add_forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help=VIDEO_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_forget)


# --- commands: everything heavy is imported where it is used ----------------------------------------------------------


def _status(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.client import ask

    def document() -> dict[str, Any]:
        found = ask(config, StatusRequest())
        if found is None:
            from engine.maintenance import stopped

            return stopped(config)
        return found

    if options.json:
        return _status_json(document, options.watch)
    from engine.status_view import show, watch

    if options.watch:
        watch(document, sys.stdout)
    else:
        show(document(), sys.stdout)
    return ExitCode.OK


def _status_json(document: Callable[[], dict[str, Any]], again: bool) -> ExitCode:
    try:
        print_json(document())
        while again:
            sys.stdout.flush()
            time.sleep(1.0)
            print_json(document())
    except KeyboardInterrupt:
        if not again:
            raise
    return ExitCode.OK


def _retry(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.client import ask, targets_of

    request = RetryRequest(targets=targets_of(options.videos), everything=options.all)
    body = ask(config, request)
    if body is None:
        from engine.maintenance import retry_alone

        body = retry_alone(config, request)
        if body["count"] and not options.json:
            print("no daemon runs: the next one, or `ingest`, will try again", file=sys.stderr)
    if options.json:
        print_json(body)
        return ExitCode.OK
    for key, words in (("retried", "to be tried again"), ("not_failed", "did not fail"), ("in_work", "is in work")):
        _print_videos(body[key], words, body["count"] if key == "retried" else len(body[key]))
    if not any(body[key] for key in ("retried", "not_failed", "in_work")):
        print("nothing has failed")
    return ExitCode.OK


def _forget(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.client import ask, targets_of

    request = ForgetRequest(targets=targets_of(options.videos))
    body = ask(config, request)
    if body is None:
        from engine.maintenance import forget_alone

        body = forget_alone(config, request)
    if body.get("pending"):
        print(f"its points go when the store is back, with the next run: {body['pending']}", file=sys.stderr)
    if options.json:
        print_json(body)
    else:
        _print_videos(body["forgotten"], "forgotten", len(body["forgotten"]))
    return ExitCode.OK


def _print_videos(videos: list[dict[str, Any]], words: str, count: int) -> None:
    for video in videos[:SHOWN]:
        print(f"{words}: {video['path']}")
    if count > SHOWN:
        print(f"{words}: {count - min(SHOWN, len(videos))} more")


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    print(json.dumps(value, ensure_ascii=False))
