"""What a transcript begins with: its language and task, and before these a text that is as if it had been said before.

CTranslate2 wants the start of the transcript at one place in all windows of a batch: so that text is the same for all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import ModelError
from stages.languages import short_code
from stages.options import SpeechOptions

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

LONGEST_PROMPT = 223  # tokens before the start: half the model's positions less one, as in Whisper itself
SPECIAL_TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")
REMEDY = "take a directory that was converted for faster-whisper, with its tokenizer.json"


class Prompts:
    """The prompts of a Whisper under a configuration."""

    def __init__(self, tokenizers: Mapping[str, Any], multilingual: bool, options: SpeechOptions) -> None:
        """tokenizers: faster-whisper's, by language, at least one.

        Raises ModelError: model-task, model-language, model-prompt when the model cannot do what the options ask.
        """
        if options.task == "translate" and not multilingual:
            raise ModelError(
                "model-task", 'speech.task = "translate": this model knows only English; set models.speech to another'
            )
        self._tokenizers = tokenizers
        self.language = self._known(options.language) if options.language is not None else None
        self._before = self._said_before(options)

    def of(self, language: str) -> list[int]:
        """Tokens up to the first of the text."""
        tokenizer = self._tokenizers[language]
        return [*self._before, *tokenizer.sot_sequence, tokenizer.no_timestamps]

    def _known(self, language: str) -> str:
        code = short_code(language)
        if code not in self._tokenizers:
            known = ", ".join(self._tokenizers)
            raise ModelError("model-language", f'speech.language = "{language}": this model knows {known}')
        return code

    def _said_before(self, options: SpeechOptions) -> list[int]:
        tokenizer = next(iter(self._tokenizers.values()))  # text is the same in all
        texts = [text.strip() for text in (options.hotwords, options.initial_prompt) if text is not None]
        tokens = [token for text in texts if text for token in tokenizer.encode(f" {text}")]
        where = "speech.initial_prompt and speech.hotwords"
        if len(tokens) > LONGEST_PROMPT:
            raise ModelError(
                "model-prompt", f"{where} are {len(tokens)} tokens long, the model takes {LONGEST_PROMPT}: shorten them"
            )
        if any(token >= tokenizer.eot for token in tokens):
            raise ModelError("model-prompt", f"{where}: take the model's own marks, such as <|en|>, out of the text")
        return [tokenizer.sot_prev, *tokens] if tokens else []


def language_tokenizers(whisper: "WhisperModel", options: SpeechOptions) -> dict[str, "Tokenizer"]:
    """faster-whisper's tokenizers, by language. Words of a translation are told apart as English ones.

    Raises ModelError (model-wrong-kind) when the model's own tokenizer knows no language.
    """
    from faster_whisper.tokenizer import Tokenizer

    inner, multilingual = whisper.hf_tokenizer, whisper.model.is_multilingual
    tokenizers = {
        code: Tokenizer(inner, multilingual, task=options.task, language=code)
        for code in whisper.supported_languages
        if not multilingual or inner.token_to_id(f"<|{code}|>") is not None
    }
    if not tokenizers:
        raise ModelError("model-wrong-kind", f"models.speech: its tokenizer has no token of any language: {REMEDY}")
    for tokenizer in tokenizers.values():
        if options.task == "translate":
            tokenizer.language_code = "en"
    return tokenizers


def check_tokenizer(file: Path) -> None:
    """Without the file faster-whisper would ask the hub for one; without Whisper's tokens nothing would come of it.

    Raises ModelError: model-wrong-kind.
    """
    try:
        added = json.loads(file.read_text("utf-8"))["added_tokens"]
        lacking = [token for token in SPECIAL_TOKENS if token not in {entry["content"] for entry in added}]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "model-wrong-kind", f"models.speech: {file} is missing or no tokenizer ({type(error).__name__}): {REMEDY}"
        ) from error
    if lacking:
        raise ModelError("model-wrong-kind", f"models.speech: {file} lacks {lacking[0]}: {REMEDY}")
