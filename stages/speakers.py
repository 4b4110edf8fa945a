"""Known speakers: people are enrolled, listed, renamed, merged and removed, and the archive's voices get their names.

All of it is a function of the stored vectors and profiles. What changes a profile is durable before voices are
renamed for it, and what removes one comes last; so whatever is broken off can be done again, or mended by `relabel`.
"""

import heapq
import uuid
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from stages.profiles import (
    Profile,
    Roster,
    SpeakerError,
    check_same_person,
    clean_name,
    clips_text,
    distinct,
    find,
    merged,
    new_profile,
    tidy,
    timestamp,
    voice_dimension,
    with_clips,
)
from stages.relabelling import Voices, relabelled
from stages.roster import CLUSTER, PAGE, archive_threshold, names_by_model, read_profiles, read_roster, write_profile
from stages.store import SPEAKERS, Filter, Store, speakers_spec
from stages.video_labels import labelled
from transport.messages import SpeakersTask, VoiceSample

__all__ = ["Roster", "labelled", "perform", "read_roster", "steps"]

SHOWN_VOICES = 500  # of a speaker, those that speak longest
SHOWN_TURNS = 100  # of each of them, the first

Steps = Generator[int, None, dict[str, Any]]  # between two the caller may do other things; returns the answer


def perform(store: Store, task: SpeakersTask) -> dict[str, Any]:
    """Do what a task asks; returns the answer that the command prints with --json.

    Raises:
        SpeakerError: a clip or a name is refused; nothing was changed. StoreError.
    """
    work = steps(store, task)
    while True:
        try:
            next(work)
        except StopIteration as end:
            answer: dict[str, Any] = end.value
            return answer


def steps(store: Store, task: SpeakersTask) -> Steps:
    """`perform` in steps, of which each has done something durable or looked at a page of points."""
    match task.action:
        case "enroll":
            return _enroll(store, task)
        case "rename":
            return _rename(store, task)
        case "merge":
            return _merge(store, task)
        case "remove":
            return _remove(store, task)
        case "relabel":
            return _relabel(store, task)
        case "list":
            return _list(store, task)
        case "show":
            return _show(store, task)


# --- changes --------------------------------------------------------------------------------------------------------


def _enroll(store: Store, task: SpeakersTask) -> Steps:
    name = clean_name(task.name)
    samples, notes = distinct(task.samples)
    store.ensure([speakers_spec(voice_dimension(samples))])
    profiles = read_profiles(store, task.model)
    _refuse_clips_of_others(profiles, name, samples)
    known = next((profile for profile in profiles if profile.name == name), None)
    new = [sample for sample in samples if known is None or sample.content not in known.contents]
    notes += [
        f"{sample.shown_path} is a clip of {name} already: not counted again" for sample in samples if sample not in new
    ]
    check_same_person(new, known)
    if known is None:
        known = new_profile(str(uuid.uuid4()), name, new, task.now)
    elif new:
        known = with_clips(known, new, task.now).noting(task.now, "clips added", clips_text(new))
    write_profile(store, known, task.model)
    yield 1
    body = yield from _give_names(store, task, read_profiles(store, task.model), known)
    return {**body, "added": len(new), "notes": notes + body["notes"]}


def _refuse_clips_of_others(profiles: Sequence[Profile], name: str, samples: Sequence[VoiceSample]) -> None:
    for profile in profiles:
        theirs = [sample for sample in samples if sample.content in profile.contents]
        if theirs and profile.name != name:
            raise SpeakerError(
                "clip-elsewhere",
                f"{theirs[0].shown_path} is a clip of {profile.name}: leave it out, or merge the two speakers",
            )


def _rename(store: Store, task: SpeakersTask) -> Steps:
    new_name = clean_name(task.into)
    profiles = read_profiles(store, task.model)
    if _is_done(profiles, new_name, task, "renamed", f"from {tidy(task.name)}"):
        return (yield from _give_names(store, task, profiles, find(profiles, new_name)))
    profile = find(profiles, task.name)
    if new_name != profile.name:
        if any(other.name == new_name for other in profiles):
            raise SpeakerError(
                "name-taken", f"somebody called {new_name} is enrolled: merge the two, or choose another"
            )
        profile = replace(profile, name=new_name).noting(task.now, "renamed", f"from {profile.name}")
        write_profile(store, profile, task.model)
        yield 1
    return (yield from _give_names(store, task, read_profiles(store, task.model), profile))


def _merge(store: Store, task: SpeakersTask) -> Steps:
    profiles = read_profiles(store, task.model)
    into = find(profiles, task.into)
    is_gone = all(profile.name != tidy(task.name) for profile in profiles)
    if is_gone and _is_done(profiles, into.name, task, "merged", f"{tidy(task.name)}: "):
        return (yield from _give_names(store, task, profiles, into))
    one = find(profiles, task.name)
    if one.profile_id == into.profile_id:
        raise SpeakerError("name-same", f"{one.name} cannot be merged with itself: name two speakers")
    into = merged(one, into, task.now)
    write_profile(store, into, task.model)
    yield 1
    body = yield from _give_names(store, task, _without(read_profiles(store, task.model), one), into)
    store.delete(SPEAKERS, Filter(ids=(one.profile_id,)))
    return body


def _remove(store: Store, task: SpeakersTask) -> Steps:
    profiles = read_profiles(store, task.model)
    profile = find(profiles, task.name)
    body = yield from _give_names(store, task, _without(profiles, profile))
    store.delete(SPEAKERS, Filter(ids=(profile.profile_id,)))
    return {**body, "removed": profile.name}


def _relabel(store: Store, task: SpeakersTask) -> Steps:
    return _give_names(store, task, read_profiles(store, task.model))


def _without(profiles: Sequence[Profile], one: Profile) -> list[Profile]:
    return [profile for profile in profiles if profile.profile_id != one.profile_id]


def _give_names(store: Store, task: SpeakersTask, profiles: Sequence[Profile], profile: Profile | None = None) -> Steps:
    """Relabel the archive, and answer with what came of it, for `profile` above all."""
    roster = Roster(profiles, archive_threshold(store, task.model, len(profiles)))
    found = yield from relabelled(store, task.model, roster, task.now)
    return {
        "action": task.action,
        "speaker": None if profile is None else _speaker_body(profile, found.of(profile)),
        "looked_at": found.all.as_dict(),
        "changed": found.changed.as_dict(),
        "threshold": roster.threshold.as_dict(),
        "notes": _alike(roster, profile) if profile is not None else [],
    }


def _alike(roster: Roster, profile: Profile) -> list[str]:
    return [
        f"{profile.name} sounds like {name} (cosine {score:.2f}): merge the two if they are one person"
        for name, score in roster.alike(profile)
    ]


def _speaker_body(profile: Profile, voices: Voices) -> dict[str, Any]:
    return {
        "name": profile.name,
        "profile_id": profile.profile_id,
        "clips": len(profile.clips),
        "clip_seconds": profile.seconds,
        "enrolled": profile.history[0].at,
        **voices.as_dict(),
    }


# --- looking --------------------------------------------------------------------------------------------------------


def _list(store: Store, task: SpeakersTask) -> Steps:
    profiles = read_profiles(store, task.model)
    roster = Roster(profiles, archive_threshold(store, task.model, len(profiles)))
    speaking: dict[str | None, Voices] = {}
    points = store.scroll(SPEAKERS, False, Filter(kind=CLUSTER, model=task.model), page=PAGE)
    for seen, point in enumerate(points, start=1):
        speaking.setdefault(point.payload.get("profile_id"), Voices()).add(point.payload)
        if seen % PAGE == 0:
            yield 0
    others = {model: names for model, names in names_by_model(store).items() if model != task.model}
    return {
        "action": task.action,
        "speakers": [_speaker_body(each, speaking.get(each.profile_id, Voices())) for each in roster.profiles],
        "unnamed": speaking.get(None, Voices()).as_dict(),
        "threshold": roster.threshold.as_dict(),
        "other_models": others,
    }


def _show(store: Store, task: SpeakersTask) -> Steps:
    profile = find(read_profiles(store, task.model), task.name)
    voices = Voices()
    longest: list[tuple[float, str, int, dict[str, Any]]] = []  # a heap, the shortest first
    mine = Filter(kind=CLUSTER, model=task.model, speaker=profile.name)
    for seen, point in enumerate(store.scroll(SPEAKERS, False, mine, page=PAGE), start=1):
        facts = point.payload
        voices.add(facts)
        heapq.heappush(longest, (facts["seconds"], facts["video_id"], facts["cluster"], _appearance(facts)))
        if len(longest) > SHOWN_VOICES:
            heapq.heappop(longest)
        if seen % PAGE == 0:
            yield 0
    return {
        "action": task.action,
        "speaker": _speaker_body(profile, voices),
        "appearances": [appearance for *_, appearance in sorted(longest, key=lambda each: (-each[0], each[1:3]))],
        "clips": list(profile.clips),
        "history": [event._asdict() for event in profile.history],
    }


def _appearance(facts: dict[str, Any]) -> dict[str, Any]:
    """One voice of one video, and when it speaks there."""
    shown = {name: facts.get(name) for name in ("video_id", "path", "cluster", "seconds", "match_score")}
    return {**shown, "turns": facts["turns"][:SHOWN_TURNS], "more_turns": max(0, len(facts["turns"]) - SHOWN_TURNS)}


def _is_done(profiles: Sequence[Profile], name: str, task: SpeakersTask, event: str, detail: str) -> bool:
    """Whether this very task was performed before: a consumer that dies before it answers is asked again."""
    at = timestamp(task.now)
    return any(
        profile.name == name and each.at == at and each.event == event and each.detail.startswith(detail)
        for profile in profiles
        for each in profile.history
    )
