"""`export` on the command line: what is said in a video, and by whom."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.cli_daemon import VIDEO_HELP
from engine.config import Config
from engine.errors import ConfigError, ExitCode

FORMATS = ("srt", "vtt", "json", "rttm")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser. commands: from `add_subparsers`."""
    parser = commands.add_parser("export", parents=[common], help="what is said in a video: subtitles, JSON, turns")
    parser.add_argument("video", metavar="VIDEO", help=VIDEO_HELP)
    parser.add_argument(
        "--format", required=True, choices=FORMATS, help="subtitles, all that is known, or speaker turns (rttm)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there, and not to standard output")
    parser.add_argument("--no-speakers", action="store_true", help="leave out who speaks")
    parser.add_argument(
        "--text-by", metavar="WRITER", help='only text by "captions" or by a speech model (NAME@REVISION)'
    )
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.client import targets_of
    from engine.export import check_output, export, write

    if options.format == "rttm" and (options.no_speakers or options.text_by is not None):
        raise ConfigError("bad-argument", "rttm holds nothing but speaker turns: leave out --no-speakers and --text-by")
    if options.output is not None:
        check_output(options.output, config)
    (target,) = targets_of([options.video])
    done = export(config, target, options.format, not options.no_speakers, options.text_by)
    for note in done.notes:
        print(note, file=sys.stderr)
    if options.output is None:
        _print(done.text)
    elif (hint := write(done, options.output)) is not None:
        print(hint, file=sys.stderr)
    return ExitCode.OK


def _print(text: Iterable[str]) -> None:
    """UTF-8 and plain line feeds, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.writelines(part.encode() for part in text)
    sys.stdout.buffer.flush()
