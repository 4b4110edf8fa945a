"""The command line: parsing, and what each command prints. The contract stands in README.md."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from engine import cli_export, cli_speakers
from engine.cli_daemon import add_commands, print_json
from engine.config import Config, load_config
from engine.errors import ConfigError, ExitCode
from stages.errors import SluiceError
from transport.requests import MAX_HITS, MAX_QUERY_CHARACTERS, SearchRequest

Command = Callable[[argparse.Namespace, Config], ExitCode]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Expected errors are one line on standard error."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return int(command(options, _config(options)))
    except SluiceError as error:
        if options.debug:
            traceback.print_exc()
        print(f"sluice: {error.code}: {error.message}", file=sys.stderr)
        return int(ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.NO_START)
    except KeyboardInterrupt:
        print("sluice: interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)


def _config(options: argparse.Namespace) -> Config:
    settings = list(options.set)
    if options.store is not None:
        key = "store.url" if options.store.startswith(("http://", "https://")) else "store.path"
        settings.append(f"{key}={json.dumps(options.store)}")
        if key == "store.path":
            settings.append("store.url=none")
    return load_config(options.config, os.environ, settings)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; see configs/default.toml for every setting"
    )
    common.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, such as decode.fps=2"
    )
    common.add_argument("--store", metavar="DIR|URL", help="embedded store's directory, or a Qdrant server's URL")
    common.add_argument("--debug", action="store_true", help="tracebacks, and the logs of all processes")
    parser = argparse.ArgumentParser(prog="run.py", description="Sluice: videos in, searchable vectors out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_ingest(commands.add_parser("ingest", parents=[common], help="index files and directories"))
    _add_daemon(commands.add_parser("daemon", parents=[common], help="index watched directories, until SIGTERM"))
    add_commands(commands, common)
    _add_search(commands.add_parser("search", parents=[common], help="find frames and speech"))
    cli_export.add_commands(commands, common)
    cli_speakers.add_commands(commands, common)
    _add_points(commands.add_parser("points", parents=[common], help="every stored point as JSON lines"))
    _add_models(commands.add_parser("models", parents=[common], help="list, pull, check, or build tiny ones"))
    _add_doctor(commands.add_parser("doctor", parents=[common], help="what is wrong here, and what to do"))
    return parser


def _add_ingest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, or directories to look through")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write the report there")
    parser.add_argument("--json", action="store_true", help="print the report instead of a summary")
    parser.add_argument(
        "--profile", action="store_true", help="say at the end what held the run up, and which setting to turn next"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE.json", help="record there what every process does when, for ui.perfetto.dev"
    )
    parser.set_defaults(command=_ingest)


def _add_daemon(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_daemon)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("--in", dest="within", choices=("frames", "speech", "all"), default="all")
    parser.add_argument("--speaker", metavar="NAME", help="only what this speaker says")
    parser.add_argument(
        "--limit", type=_limit, default=10, metavar="N", help=f"hits of each kind (10; {MAX_HITS} at most)"
    )
    parser.add_argument("--hybrid", action="store_true", help="speech: match words too, fused by rank")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_search)


def _add_points(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--collection",
        choices=("frames", "speech", "voices", "speakers"),
        metavar="C",
        help="frames, speech, voices or speakers",
    )
    parser.add_argument("--vectors", action="store_true", help="with their vectors")
    parser.set_defaults(command=_points)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "pull", "check", "tiny"))
    parser.add_argument("directory", nargs="?", type=Path, help="tiny: where to build them (models.directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_models)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_doctor)


def _limit(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_HITS:
        raise argparse.ArgumentTypeError(f"must be at least 1 and at most {MAX_HITS}")
    return value


# --- commands: everything heavy is imported where it is used ----------------------------------------------------------


def _ingest(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.ingest import ingest

    paths = [os.fsencode(path) for path in options.paths]
    record = {"profiled": options.profile, "trace_file": options.trace}
    return ingest(config, paths, options.report, options.json, options.debug, **record)


def _daemon(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.daemon import run_daemon

    return run_daemon(config, partial(_config, options), options.debug)


def _search(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.client import ask
    from engine.progress import clock

    request = _search_request(options)
    found = ask(config, request)  # the daemon has the models loaded, and the embedded store open
    if found is None:
        from engine.search import search

        found = search(config, request.query, request.within, request.limit, request.speaker, request.hybrid)
    if options.json:
        print_json(found)
        return ExitCode.OK
    for hit in found["hits"]:
        when = f"{clock(hit['start_seconds'])}-{clock(hit['end_seconds'])}"
        who = f" {hit['speaker']}:" if hit["speaker"] else ""
        said = f"{who} {hit['text']}" if hit["text"] else ""
        print(f"{hit['score']:.3f} {hit['kind']:6} {when:>15} {hit['path']}{said}")
    if not found["hits"]:
        print("nothing found: the store holds no such points (yet)", file=sys.stderr)
    return ExitCode.OK


def _search_request(options: argparse.Namespace) -> SearchRequest:
    from stages.profiles import tidy

    query, speaker = options.query, tidy(options.speaker) or None
    if not query.strip():
        raise ConfigError("bad-query", "the query is empty; say what to look for")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise ConfigError("bad-query", f"the query has {len(query)} characters; {MAX_QUERY_CHARACTERS} at most")
    try:
        f"{query}{speaker}".encode()
    except UnicodeEncodeError as error:
        raise ConfigError("bad-query", f"{error.object!a} is not valid UTF-8") from error
    return SearchRequest(
        query=query, within=options.within, limit=options.limit, speaker=speaker, hybrid=options.hybrid
    )


def _points(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.search import all_points

    for point in all_points(config, options.collection, options.vectors):
        print_json(point)
    return ExitCode.OK


def _models(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.model_commands import check, listing, pull, tiny

    if options.directory is not None and options.action != "tiny":
        raise ConfigError("bad-argument", f"models {options.action} takes no directory; set models.directory")
    match options.action:
        case "list":
            return listing(config, options.json)
        case "pull":
            return pull(config, options.json)
        case "check":
            return check(config, options.json)
        case _:
            return tiny(options.directory or Path(config.models.directory), options.json)


def _doctor(options: argparse.Namespace, config: Config) -> ExitCode:
    from engine.doctor import examine

    findings = examine(config)
    if options.json:
        print_json({"findings": [{"what": f.what, "state": f.state, "detail": f.detail} for f in findings]})
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.what}: {finding.detail}")
    return ExitCode.NO_START if any(finding.state == "problem" for finding in findings) else ExitCode.OK
