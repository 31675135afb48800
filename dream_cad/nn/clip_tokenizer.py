"""CLIP's byte-pair tokenizer: lower case, padded with id 0 or with the end token."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ftfy
import torch
from tokenizers import Regex as TokenRegex
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from dream_cad.exceptions import CheckpointError, InvalidConfigError

START, END = "<|startoftext|>", "<|endoftext|>"
_SUFFIX = "</w>"
_MERGES = Path(__file__).with_name("clip_bpe_merges.txt.gz")
_NUM_MERGES = 49_152 - 256 - 2
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_SPACES = re.compile(r"\s+")


class ClipTokenizer:
    """Text to ids.

    Args:
        vocab: id of each token.
        merges: pairs, the most frequent first.
        length: ids of a text, start, end and pads included.
        pad: token that fills up a text: id 0 (Stable Diffusion 2) or the end (OpenAI's CLIP).
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        length: int = 77,
        pad: Literal["zero", "end"] = "zero",
    ) -> None:
        if START not in vocab or END not in vocab:
            raise CheckpointError(f"The vocabulary lacks {START} or {END}; it is not CLIP's.")
        self.length = length
        self._start, self._end = vocab[START], vocab[END]
        self._pad = self._end if pad == "end" else 0
        self._core = Tokenizer(
            models.BPE(
                vocab=dict(vocab),
                merges=list(merges),
                end_of_word_suffix=_SUFFIX,
                unk_token=END,
            )
        )
        self._core.normalizer = normalizers.Lowercase()
        self._core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(TokenRegex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self._core.decoder = decoders.ByteLevel()

    @classmethod
    def bundled(cls, pad: Literal["zero", "end"] = "zero") -> ClipTokenizer:
        """Return CLIP's own vocabulary of 49,408 tokens, which ships with the package."""
        lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
        merges = [_pair(line) for line in lines[1 : _NUM_MERGES + 1]]
        letters = _byte_letters()
        tokens = [*letters, *(letter + _SUFFIX for letter in letters)]
        tokens += ["".join(pair) for pair in merges]
        return cls({token: i for i, token in enumerate([*tokens, START, END])}, merges, pad=pad)

    @classmethod
    def from_folder(
        cls, folder: Path, length: int = 77, pad: Literal["zero", "end"] = "zero"
    ) -> ClipTokenizer:
        """Read ``vocab.json`` and ``merges.txt``.

        Raises:
            CheckpointError: a file is missing, damaged or not CLIP's.
        """
        import json

        try:
            vocab: Any = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [_pair(line) for line in lines if line.strip() and line[:8] != "#version"]
            return cls(vocab, merges, length, pad)
        except CheckpointError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exceptions
            raise CheckpointError(
                f"The tokenizer in {folder} cannot be read: {error}",
                hint="Fetch vocab.json and merges.txt again.",
            ) from error

    def count(self, text: str) -> int:
        """Return how many ids a text takes, start and end included."""
        return len(self._encode(text)) + 2

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids (B, length) int64; longer texts are cut, the last id is then the end."""
        ids = torch.full((len(texts), self.length), self._pad, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            found = [self._start, *self._encode(text)[: self.length - 2], self._end]
            row[: len(found)] = torch.tensor(found)
        return ids

    def check_fits(self, text: str, what: str) -> None:
        """Refuse a text that would be cut.

        Raises:
            InvalidConfigError: says how many tokens it has and where it would be cut.
        """
        ids = self._encode(text)
        room = self.length - 2
        if len(ids) > room:
            kept = "".join(self._core.id_to_token(i) or "" for i in ids[:room])
            kept = decoders.ByteLevel().decode([kept.replace(_SUFFIX, "Ġ")])
            raise InvalidConfigError(
                f"The {what} has {len(ids)} tokens; the text encoder reads {room}.",
                hint=f"Shorten it; it would end after {kept[-60:].strip()!r}.",
                details={"tokens": len(ids), "limit": room},
            )

    def _encode(self, text: str) -> list[int]:
        clean = html.unescape(html.unescape(ftfy.fix_text(text)))
        clean = _SPACES.sub(" ", clean).strip()
        ids: list[int] = self._core.encode(clean, add_special_tokens=False).ids
        return ids


def _pair(line: str) -> tuple[str, str]:
    left, right = line.split()
    return left, right


def _byte_letters() -> list[str]:
    """The printable letters that stand for bytes, in CLIP's order: printable bytes first."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(rest))]
