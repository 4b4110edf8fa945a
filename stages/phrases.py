"""From words with times to phrases that can be searched and read as captions. Pure: no model, no clock."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from transport.messages import Word

SENTENCE_END = (".", "!", "?", "…", "。", "！", "？", "।", "؟")
CLAUSE_END = (*SENTENCE_END, ",", ";", ":", "،", "，", "；", "：", "、")
PHRASE_MAX_SECONDS = 12.0  # two lines of a caption, and still one thought for the text embedder
PHRASE_MIN_SECONDS = 2.0  # "Mr." and "Yes." stay with what follows
PAUSE_SECONDS = 1.0  # whoever pauses this long begins anew
TYPICAL_WORD_MAX_SECONDS = 0.7
WORD_MAX_SECONDS = 3.0
TIME_STEP_SECONDS = 0.02  # of Whisper's alignment


def trim_words(words: Sequence[Word], window_seconds: float) -> list[Word]:
    """Keep words inside the window, and take pauses out of them.

    Alignment by attention leaves no time between words: a pause belongs to the word before or behind it. A word at the
    edge of a sentence that lasts longer than twice the median word is cut to that, on the side of the edge; a word
    inside a sentence, behind its beginning, when no word can be that long.
    """
    longest = 2 * min(_median(word.end_seconds - word.start_seconds for word in words), TYPICAL_WORD_MAX_SECONDS)
    trimmed = []
    for index, word in enumerate(words):
        begins = index == 0 or _ends_with(words[index - 1], SENTENCE_END)
        ends = index == len(words) - 1 or _ends_with(word, SENTENCE_END)
        start, end = _cut(word.start_seconds, word.end_seconds, longest, begins, ends)
        trimmed.append(Word(_within(start, window_seconds), _within(end, window_seconds), word.text))
    return trimmed


def split_phrases(words: Sequence[Word]) -> list[list[Word]]:
    """Cut a transcript at pauses, behind sentences, and where a phrase would last longer than PHRASE_MAX_SECONDS.

    Every word is in exactly one phrase, in order. Only a single word can last longer than the maximum.
    """
    phrases = []
    rest = list(words)
    while rest:
        size = _phrase_size(rest)
        phrases.append(rest[:size])
        rest = rest[size:]
    return phrases


def phrase_span(phrase: Sequence[Word], window_seconds: float) -> tuple[float, float]:
    """Start and end of a phrase, never the same: alignment gives some words no time at all."""
    start, end = phrase[0].start_seconds, max(word.end_seconds for word in phrase)
    end = min(max(end, start + TIME_STEP_SECONDS), window_seconds)
    return max(0.0, min(start, end - TIME_STEP_SECONDS)), end


def _phrase_size(words: Sequence[Word]) -> int:
    """How many of `words`, which is not empty, make the first phrase."""
    for index, (word, following) in enumerate(pairwise(words)):
        if following.end_seconds - words[0].start_seconds > PHRASE_MAX_SECONDS:
            return _best_cut(words[: index + 1])
        if following.start_seconds - word.end_seconds >= PAUSE_SECONDS:
            return index + 1
        long_enough = word.end_seconds - words[0].start_seconds >= PHRASE_MIN_SECONDS
        if long_enough and _ends_with(word, SENTENCE_END):
            return index + 1
    return len(words)


def _best_cut(words: Sequence[Word]) -> int:
    """Of a phrase that is full: behind its last clause, if that leaves at least half of it, else where it is full."""
    for size in range(len(words), len(words) // 2, -1):
        if _ends_with(words[size - 1], CLAUSE_END):
            return size
    return len(words)


def _cut(start: float, end: float, longest: float, begins: bool, ends: bool) -> tuple[float, float]:
    if end - start <= longest:
        return start, end
    if begins:
        return end - longest, end
    return (start, start + longest) if ends or end - start > WORD_MAX_SECONDS else (start, end)


def _median(durations: Iterator[float]) -> float:
    """Of those above zero; words without time say nothing of how fast somebody speaks."""
    ranked = sorted(duration for duration in durations if duration > 0)
    return ranked[len(ranked) // 2] if ranked else TYPICAL_WORD_MAX_SECONDS


def _ends_with(word: Word, marks: tuple[str, ...]) -> bool:
    return word.text.rstrip("\"'”’»)]").endswith(marks)


def _within(seconds: float, window_seconds: float) -> float:
    return min(max(seconds, 0.0), window_seconds)
