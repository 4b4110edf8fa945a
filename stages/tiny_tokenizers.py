"""Tokenizers for the tiny models: the real kinds, with a vocabulary learnt from the few sentences below."""

import io
from pathlib import Path
from typing import Any

# Our own sentences, about what is seen in videos. Enough to learn a few hundred pieces from.
SENTENCES = (
    "a dog runs across the park and catches a ball",
    "two women talk about a glass in a museum",
    "a man juggles a football on the grass",
    "someone flips a pancake in the kitchen",
    "a red car drives through the city at night",
    "the speaker shows a slide with text on the screen",
    "a bird with white feathers sits on a branch",
    "children play with wooden blocks on the floor",
    "a deer stands still between the autumn leaves",
    "rain falls on the street while people walk home",
    "a black and white film of an actor who falls",
    "coffee is poured from a pot into a cup",
    "a person speaks into a microphone before a crowd",
    "the sun sets over the sea and the boats return",
    "a woman reads a book aloud by the window",
    "four people sit at a table and have a meeting",
)


def build_clip_tokenizer() -> Any:
    """CLIP's byte-level tokenizer: every byte alone and at the end of a word, merges, then the two special tokens."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    merges = _word_merges(sorted({word for sentence in SENTENCES for word in sentence.split()}))
    pieces = letters + [letter + "</w>" for letter in letters] + ["".join(merge) for merge in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _byte_letters() -> list[str]:
    """The 256 printable letters that stand for bytes, in a fixed order."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _word_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges that join each word from left to right; later words use those of earlier ones where they begin alike."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        letters = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(letters)):
            merges.setdefault(("".join(letters[:end]), letters[end]))
    return list(merges)


def build_siglip_tokenizer(path: Path) -> Any:
    """SigLIP's SentencePiece tokenizer. The piece model is learnt, and written to `path`/spiece.model."""
    import sentencepiece
    from transformers import SiglipTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=400,  # 256 of them are the bytes
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=False,  # as SigLIP's own model has it
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,  # the order of sums must not depend on threads
        minloglevel=2,
    )
    file = path / "spiece.model"
    file.write_bytes(model.getvalue())
    return SiglipTokenizer(vocab_file=str(file))
