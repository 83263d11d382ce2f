"""Tokenizers: frames to latents and back. A world names its tokenizer by type in its config."""

from __future__ import annotations

from typing import Any

from neuralsim.tokenizers.base import Tokenizer
from neuralsim.tokenizers.convolutional import ConvolutionalTokenizer, ConvolutionalTokenizerConfig

TOKENIZERS: dict[str, tuple[type[Tokenizer], type]] = {
    "convolutional": (ConvolutionalTokenizer, ConvolutionalTokenizerConfig),
}


def build_tokenizer(type_name: str, config: dict[str, Any]) -> Tokenizer:
    """Builds an untrained tokenizer from its type and the fields of its config.

    Raises:
        ValueError: For an unknown type or an unknown field.
    """
    if type_name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer type {type_name!r}; there are {', '.join(TOKENIZERS)}")
    model, config_type = TOKENIZERS[type_name]
    try:
        return model(config_type(**config))  # type: ignore[call-arg]
    except TypeError as error:
        raise ValueError(f"the config of the {type_name} tokenizer does not fit this version: {error}") from None
