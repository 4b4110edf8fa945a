"""What `make demo` runs after the setup: models, video, index, two searches. It uses run.py as anybody would.

DEMO_VIDEO and DEMO_QUERY in the environment name a video of the user's own and what to look for in it.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.sample_video import make_sample

CONFIG = "configs/demo.toml"
DIRECTORY = Path("demo")
SAMPLE = DIRECTORY / "sample.mp4"
REPORT = DIRECTORY / "report.json"
SAMPLE_QUERY = "preparing a meal"  # its caption speaks of onions, butter and tomatoes
OWN_QUERY = "people talking with each other"
SEARCHED = 500  # hits asked for: the store may hold the videos of other demos, which are not shown
SHOWN = 3


class DemoError(Exception):
    """A command failed; its exit code is ours."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


def main() -> int:
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    own, query = os.environ.get("DEMO_VIDEO", ""), os.environ.get("DEMO_QUERY", "")
    video = Path(own).expanduser().absolute() if own else SAMPLE
    if own and not video.exists():
        print(f"demo: VIDEO={own}: there is no such file", file=sys.stderr)
        return 2
    try:
        build_models()
        if not own:
            build_sample()
        rows = index(video)
        for kind in ("speech", "frames"):
            find(query or (OWN_QUERY if own else SAMPLE_QUERY), kind, rows)
    except DemoError as failure:
        print(failure, file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return 130
    farewell()
    return 0


# --- the steps --------------------------------------------------------------------------------------------------------


def build_models() -> None:
    with timed() as clock:
        sluice("models", "tiny", str(DIRECTORY / "models"), "--json")
    say("Models", f"images, speech, voices: tiny stand-ins, UNTRAINED: what they find means nothing ({clock()})")
    say("", "text: all-MiniLM-L6-v2, the real one")


def build_sample() -> None:
    if SAMPLE.exists():
        say("Video", f"{SAMPLE}, from last time")
        return
    with timed() as clock:
        partial = SAMPLE.with_name(f".{os.getpid()}.{SAMPLE.name}")
        try:
            make_sample(partial).rename(SAMPLE)
        finally:
            partial.unlink(missing_ok=True)
    say("Video", f"{SAMPLE}, made here: a minute of drawn scenes, captions and a voice-like sound ({clock()})")


def index(video: Path) -> list[dict[str, Any]]:
    """The report's rows of what was indexed."""
    command = ["ingest", str(video), "--config", CONFIG, "--report", str(REPORT)]
    show("Index", command)
    with timed() as clock:
        said = sluice(*command, accepted=(0, 3))
    report = json.loads(REPORT.read_text("utf-8"))
    rows = [row for row in report["videos"] if row["status"] != "failed"]
    if not rows:
        raise DemoError(3, said)
    for row in rows:
        say("", describe(row))
    if len(rows) < len(report["videos"]):
        print(said)
    started = any(row["status"] != "unchanged" for row in rows)
    say("", f"{clock()}{' with starting the processes and loading the models' if started else ''}; all of it: {REPORT}")
    return rows


def describe(row: dict[str, Any]) -> str:
    counts = f"{row['frames']} frames, {row['speech_segments']} speech segments, {row['voice_segments']} voice segments"
    if row["status"] == "unchanged":
        return f"unchanged since last time: {counts}"
    length, wall = row["duration_seconds"] or 0.0, row["wall_seconds"]
    speed = f", {length / wall:.0f} times as fast as it plays" if length and wall else ""
    return f"{row['status']}: {counts} of {length:.0f} s in {wall:.1f} s{speed}"


def find(query: str, kind: str, rows: list[dict[str, Any]]) -> None:
    """Search, and show the best hits in these videos."""
    command = ["search", query, "--in", kind, "--config", CONFIG]
    print()
    show("Search", command)
    with timed() as clock:
        found = json.loads(sluice(*command, "--json", "--limit", str(SEARCHED)))
    ours = {row["video_id"] for row in rows}
    hits = [hit for hit in found["hits"] if hit["video_id"] in ours][:SHOWN]
    for hit in hits:
        text = hit["text"] or "a frame"
        say("", f"{hit['score']:.3f}  {moment(hit['start_seconds'])}-{moment(hit['end_seconds'])}  {shortened(text)}")
    say("", f"{verdict(kind, hits, rows)} ({clock()}, most of it to load the model)")


def verdict(kind: str, hits: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """What these hits are worth."""
    if not hits:
        return f"nothing: this video has no {kind}"
    if kind == "frames":
        return "Untrained image model: these are no better than a guess"
    if all(row["path"] == str(SAMPLE) for row in rows):
        return "Found in the captions, by meaning and not by words"
    if all(any(note.startswith("captions:") for note in row["notes"]) for row in rows):
        return "Found in the captions, by meaning; speech without a caption is gibberish here, its model is untrained"
    return "No captions here, and the speech model is untrained: its text is gibberish"


def farewell() -> None:
    print()
    say("Next", 'make demo VIDEO=/path/to/your.mp4 QUERY="what to look for"')
    say("", f'.venv/bin/python run.py search "is a storm coming?" --config {CONFIG}')
    say("", ".venv/bin/python run.py models pull      # trained models; then ingest and search without --config")


# --- helpers ----------------------------------------------------------------------------------------------------------


def sluice(*arguments: str, accepted: tuple[int, ...] = (0,)) -> str:
    """What run.py prints. Its progress is shown on a terminal, and kept for the case of failure elsewhere."""
    live = sys.stderr.isatty() and arguments[0] == "ingest"
    done = subprocess.run(
        [sys.executable, "run.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=None if live else subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    if done.returncode not in accepted:
        raise DemoError(done.returncode, (done.stderr or done.stdout).strip())
    return done.stdout


@contextlib.contextmanager
def timed() -> Iterator[Any]:
    """Gives a function that tells how long the block took."""
    start = time.monotonic()
    took: list[float] = []
    yield lambda: f"{took[0]:.1f} s"
    took.append(time.monotonic() - start)


def show(label: str, command: list[str]) -> None:
    """A command, as it would be typed."""
    say(label, f".venv/bin/python run.py {shlex.join(command)}")


def say(label: str, text: str) -> None:
    print(f"{label:8}{text}")


def moment(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def shortened(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
