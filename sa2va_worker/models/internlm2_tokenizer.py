"""InternLM2's tokenizer: a sentencepiece model, read without the code that its checkpoints bring for it.

What sentencepiece would do is set up here in the `tokenizers` library, which every other family uses too: byte pair
encoding by the pieces' scores, with bytes for what no piece covers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.commands import pip_command

from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

FILE = "tokenizer.model"
SETTINGS = "tokenizer_config.json"
SPACE = "▁"
"""What sentencepiece writes for a space."""


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The tokenizer of `tokenizer.model`, with the special tokens of `tokenizer_config.json`.

    As upstream's does, it starts what it encodes as a whole with `<s>`, unless the settings say otherwise. Raises
    `ModelLoadFailed`.
    """
    pieces = _pieces(checkpoint.folder / FILE)
    settings = checkpoint.optional_json(SETTINGS)
    special = _special_tokens(checkpoint, settings.get("added_tokens_decoder", {}))
    # Some special tokens have the place of a piece that was kept free for them.
    names = dict(enumerate(pieces.id_to_piece(list(range(len(pieces)))))) | special
    vocabulary = {name: token for token, name in names.items()}
    spoken = {
        pieces.id_to_piece(token): pieces.get_score(token)
        for token in range(len(pieces))
        if _is_text(pieces, token)
    }
    tokenizer = Tokenizer(
        BPE(
            vocabulary,
            generate_merges(vocabulary, list(spoken.items()), set(vocabulary) - set(spoken)),
            unk_token=pieces.id_to_piece(pieces.unk_id()),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", SPACE)
    leads = pieces.encode("a", out_type=str)[0].startswith(SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if leads else spaces
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special.values()])
    begin, end = pieces.id_to_piece([pieces.bos_id(), pieces.eos_id()])
    if settings.get("add_bos_token", True):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, pieces.bos_id())]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end)


def _pieces(file: Path) -> SentencePieceProcessor:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ModelLoadFailed(
            f"{file} is a sentencepiece model, and the library that reads it is not installed.",
            advice=f"Run: {pip_command(['sentencepiece'])}",
        ) from error
    try:
        return SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise ModelLoadFailed(
            f"{file} cannot be read: {str(error).rstrip('.')}.", advice="Fetch the checkpoint again."
        ) from error


def _special_tokens(checkpoint: Checkpoint, stored: object) -> dict[int, str]:
    """Names of the special tokens by id, from what transformers writes as `added_tokens_decoder`."""
    try:
        return {int(token): str(entry["content"]) for token, entry in stored.items()}  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise checkpoint.unusable(
            "added_tokens_decoder", stored, "a table of tokens by their ids", SETTINGS
        ) from error


def _is_text(pieces: SentencePieceProcessor, token: int) -> bool:
    """Whether a piece can come from text that somebody typed."""
    kinds = (pieces.is_control, pieces.is_unknown, pieces.is_unused, pieces.is_byte)
    return not any(kind(token) for kind in kinds)
