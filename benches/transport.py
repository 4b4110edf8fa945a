"""What the wire costs: `python -m benches transport [MEDIUM]`.

A decoder's own sending (engine.producer.Decoder: headers, byte credit, beats) in one process, the engine's own
receiving (engine.ingress.Ingress: a thread that returns credit) in another, over ipc. The receiver keeps nothing. Three
loads:

    frames   Frame messages, uint8 [224, 224, 3], 150 kB each, of random pixels (seed 0)
    speech   Speech messages, int16 [480000], 960 kB each: windows of 30 s
    medium   as many frames and windows, of the sizes and at the pace at which MEDIUM's came when it was decoded

Time runs from the first message until all credit is back, so everything has arrived. CPU seconds are those of the
sender, its ZeroMQ thread included and its sleep between messages left out. The share of the wire is the CPU time of the
load "medium" over that of decoding MEDIUM, without imports: all frames at one a second by PyAV, and all windows of
speech. Figures are medians of interleaved rounds; GB are 10^9 bytes.
"""

import argparse
import multiprocessing
import os
import queue
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from benches.corpus import SEED, import_all, libraries_for
from benches.measuring import in_turn, ratio_of, spread
from benches.options import add_medium, medium_in
from benches.report import Chart, Findings, Table
from benches.show import cell_text
from engine.config import Config
from engine.ingress import Ingress
from engine.producer import Decoder
from engine.rundir import endpoints_in, run_directory
from engine.worker import Endpoints, WorkerSpec
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.sampling import SampledFrame
from stages.spans import spans_of
from stages.video import read_frames
from stages.windows import SpeechWindow, read_speech_windows
from transport.codec import spec_of
from transport.messages import Frame, FrameFormat, Join, Message, Speech, TaskKey, ToSupervisor
from transport.sockets import Channel

TITLE = "the wire from a decoder to the engine: GB/s, messages/s, and its share of the decoder's processor time"
AIM = 0.03  # of a decoder's CPU time
FORMAT = FrameFormat(width=224, height=224, fit="crop")
FRAME_SHAPE = (224, 224, 3)
WINDOW_SAMPLES = 480_000  # 30 s at 16 kHz
POOL_BYTES = 64 * 1024 * 1024  # arrays to send in turn: more than a cache holds, as freshly decoded ones are
WARM_UP_MEGABYTES = 10.0
KEY = TaskKey(1, 1)

Array = NDArray[Any]


# --- sender -----------------------------------------------------------------------------------------------------------


def message_of(array: Array) -> Message:
    """The message that a decoder would send with it."""
    if array.dtype == np.uint8:
        return Frame(key=KEY, start_seconds=1.0, end_seconds=2.0, array=spec_of(array))
    seconds = len(array) / 16_000
    return Speech(
        key=KEY,
        start_seconds=0.0,
        end_seconds=seconds,
        speech=((0.0, seconds),),
        captioned_seconds=0.0,
        transcribe=True,
        voices=True,
        array=spec_of(array),
    )


def arrays_for(load: str, megabytes: float, decoded: dict[str, Any]) -> list[Array]:
    """What is to be sent, in order; equal arrays of a pool in turn."""
    random = np.random.default_rng(SEED)
    if load == "medium":
        pixels = _pool(random, np.uint8, FRAME_SHAPE, decoded["frames"])
        return pixels + [_pool(random, np.int16, (samples,), 1)[0] for samples in decoded["window_samples"]]
    dtype, shape = (np.uint8, FRAME_SHAPE) if load == "frames" else (np.int16, (WINDOW_SAMPLES,))
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return _pool(random, dtype, shape, max(1, round(megabytes * 1e6 / size)))


def _pool(random: np.random.Generator, dtype: Any, shape: tuple[int, ...], count: int) -> list[Array]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    distinct = min(count, max(1, POOL_BYTES // size))
    pool = [random.integers(0, 128, shape, dtype=dtype) for _ in range(distinct)]
    return [pool[index % distinct] for index in range(count)]


def send_load(load: str, megabytes: float, decoded: dict[str, Any], endpoints: Endpoints) -> dict[str, float]:
    """Send as a decoder does: the load "medium" at the pace of decoding, the others as fast as it goes."""
    arrays = arrays_for(load, megabytes, decoded)
    seconds = decoded["wall_seconds"] if load == "medium" else 0.0
    spec = WorkerSpec(role="decoder", index=0, generation=1, endpoints=endpoints, config=Config())
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    decoder = Decoder(spec, context)
    decoder._items.send(Join())
    while not decoder._credit.limit_bytes:
        decoder._take_grants(timeout_ms=100)
    cpu, wall, idle = time.process_time(), time.perf_counter(), 0.0
    for number, array in enumerate(arrays):
        idle += _wait_until(wall + seconds * number / len(arrays))
        decoder._send_item(message_of(array), array)
    while decoder._credit.available_bytes < decoder._credit.limit_bytes:
        decoder._take_grants(timeout_ms=100)
    cpu, wall = time.process_time() - cpu - idle, time.perf_counter() - wall
    decoder._items.close()
    decoder._control.close()
    size = sum(array.nbytes for array in arrays)
    return {
        "messages": len(arrays),
        "bytes": size,
        "gb_per_second": size / 1e9 / wall,
        "messages_per_second": len(arrays) / wall,
        "sender_cpu_seconds": cpu,
        "sender_cpu_seconds_per_gb": cpu / (size / 1e9),
        "wall_seconds": wall,
    }


def _wait_until(moment: float) -> float:
    """Sleep; returns the CPU seconds that this thread took to fall asleep and to wake, which a decoder does not do."""
    before, left = time.thread_time(), moment - time.perf_counter()
    if left > 0:
        time.sleep(left)
    return time.thread_time() - before


# --- decoding ---------------------------------------------------------------------------------------------------------


def decode(medium: Path) -> dict[str, Any]:
    """Read all that a run would send of a medium, and send nothing: counts, sizes and CPU seconds."""
    path, options = os.fsencode(medium), DecodeOptions()
    media = probe(path, options)
    import_all(libraries_for(media, options.backend))
    cpu, wall = time.process_time(), time.perf_counter()
    frames = 0
    for start, end in spans_of(media, options):
        samples = read_frames(path, media, start, end, FORMAT, options)
        frames += sum(isinstance(sample, SampledFrame) for sample in samples)
    windows = []
    if media.audio is not None:
        found = read_speech_windows(path, media, options, SpeechOptions())
        windows = [len(window.pcm) for window in found if isinstance(window, SpeechWindow)]
    return {
        "frames": frames,
        "window_samples": windows,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
    }


# --- processes --------------------------------------------------------------------------------------------------------


def in_process(
    work: Callable[..., dict[str, Any]], *arguments: Any, while_waiting: Callable[[], None] | None = None
) -> Any:
    """Call `work` in a process of its own, as the decoders are; returns what it returns.

    Raises:
        EOFError: it ended without a result; what went wrong is on its standard error.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    while not ours.poll(0 if while_waiting else None):
        if while_waiting:
            while_waiting()
    try:
        return ours.recv()
    finally:
        process.join()
        ours.close()


def _answer(result: Connection, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    result.send(work(*arguments))


def transfer(load: str, megabytes: float, decoded: dict[str, Any], endpoints: Endpoints) -> dict[str, float]:
    """Runs in the receiving process: starts the sender, receives, gives credit back."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
    ingress = Ingress(context, endpoints.items, Config().engine.host_mb * 1024 * 1024)
    ingress.start()
    received = 0

    def take() -> None:
        nonlocal received
        try:
            sender, _, payload, cost_bytes = ingress.inbox.get(timeout=0.05)
        except queue.Empty:
            return
        received += payload.nbytes if payload is not None else 0
        ingress.release([(sender, cost_bytes)])

    figures: dict[str, float] = in_process(send_load, load, megabytes, decoded, endpoints, while_waiting=take)
    if received != figures["bytes"]:
        raise RuntimeError(f"{figures['bytes']} bytes were sent and {received} received")
    control.close()
    return figures


# --- figures ----------------------------------------------------------------------------------------------------------

LOADS = ("frames", "speech", "medium")


def one_round(medium: Path, megabytes: float, number: int = 0) -> dict[str, dict[str, Any]]:
    """Decode once, and carry each load once; each by processes of its own. number: of the round, sets the order."""
    decoded = in_process(decode, medium)
    figures: dict[str, dict[str, Any]] = {"decode": decoded}
    for load in in_turn(LOADS, number):
        with run_directory(None) as directory:
            figures[load] = transfer(load, megabytes, decoded, endpoints_in(directory))
    figures["medium"]["back_to_back_cpu_seconds"] = back_to_back_seconds(figures)
    return figures


def back_to_back_seconds(figures: dict[str, dict[str, Any]]) -> float:
    """CPU seconds for the messages of the medium at the cost of those that follow each other at once. Pure."""
    frames_gb = figures["decode"]["frames"] * int(np.prod(FRAME_SHAPE)) / 1e9
    speech_gb = sum(figures["decode"]["window_samples"]) * 2 / 1e9
    cost = {load: figures[load]["sender_cpu_seconds_per_gb"] for load in ("frames", "speech")}
    return float(frames_gb * cost["frames"] + speech_gb * cost["speech"])


def findings(rounds: Sequence[dict[str, dict[str, Any]]], medium: str) -> Findings:
    """Of all rounds. medium: what is said of it. Pure."""

    def all_of(load: str, name: str) -> list[float]:
        return [each[load][name] for each in rounds]

    decoding = all_of("decode", "cpu_seconds")
    rates = {load: statistics.median(all_of(load, "gb_per_second")) for load in ("frames", "speech")}
    return Findings(
        tables=[table(rounds)],
        ratios=[
            ratio_of(
                "wire / decoding, CPU, at the decoder's pace", all_of("medium", "sender_cpu_seconds"), decoding, AIM
            ),
            ratio_of("wire / decoding, CPU, back to back", all_of("medium", "back_to_back_cpu_seconds"), decoding, AIM),
        ],
        charts=[Chart("transport", "From a decoder to the engine over ipc", "", "GB/s", bars=rates, kind="bars")],
        notes=[
            f"Decoding {medium} takes {statistics.median(decoding):.2f} CPU s (median of {len(rounds)} rounds).",
            "The receiver keeps nothing: this is the most that the wire can carry, not what an engine takes from it.",
        ],
    )


def table(rounds: Sequence[dict[str, dict[str, Any]]]) -> Table:
    """One line a load: medians, with the spread of the rate. Pure."""
    rows = []
    for load in LOADS:
        figures = [each[load] for each in rounds]
        middle = {name: statistics.median(each[name] for each in figures) for name in figures[0]}
        low, high = spread([each["gb_per_second"] for each in figures])
        rows.append(
            (
                load,
                round(middle["messages"]),
                middle["gb_per_second"],
                f"{cell_text(low, 3)} to {cell_text(high, 3)}",
                middle["messages_per_second"],
                middle["sender_cpu_seconds"],
                middle["sender_cpu_seconds_per_gb"],
            )
        )
    return Table("The wire", ("load", "messages", "GB/s", "spread", "messages/s", "CPU s", "CPU s/GB"), tuple(rows))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The medium, and how much."""
    add_medium(parser)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--megabytes",
        type=float,
        default=1000.0,
        help="of the loads frames and speech, each round (default: %(default)g)",
    )


def measure(arguments: argparse.Namespace) -> Findings:
    """One round to warm up, which carries little, then those that count."""
    with tempfile.TemporaryDirectory() as directory:
        medium, name = medium_in(Path(directory), arguments)
        one_round(medium, min(arguments.megabytes, WARM_UP_MEGABYTES))
        rounds = [one_round(medium, arguments.megabytes, number) for number in range(arguments.repeat)]
    return findings(rounds, name)
