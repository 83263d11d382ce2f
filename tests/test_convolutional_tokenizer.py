import dataclasses

import numpy as np
import pytest
import torch

from neuralsim.tokenizers import build_tokenizer
from neuralsim.tokenizers.convolutional import ConvolutionalTokenizer, ConvolutionalTokenizerConfig

SMALL = ConvolutionalTokenizerConfig(height=16, width=24, latent_channels=4, channels=16, blocks=1)


def frames_with_a_dot(count: int, seed: int = 0) -> torch.Tensor:
    """A grey field on which one bright pixel wanders."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, 16, 24, 3), 90, np.uint8)
    frames[np.arange(count), rng.integers(16, size=count), rng.integers(24, size=count)] = 240
    return torch.from_numpy(frames)


def test_shapes_ranges_and_any_leading_dimensions():
    torch.manual_seed(0)
    tokenizer = ConvolutionalTokenizer(SMALL).eval()
    frames = frames_with_a_dot(6)
    tokenizer.fit_background(frames)
    tokenizer.fit_statistics(frames)
    latents = tokenizer.encode(frames.reshape(2, 3, 16, 24, 3))
    assert latents.shape == (2, 3, 4, 6, 4)
    low, high = tokenizer.latent_bounds()
    assert bool((latents >= low).all())
    assert bool((latents <= high).all())
    decoded = tokenizer.decode(latents)
    assert decoded.shape == (2, 3, 16, 24, 3)
    assert decoded.dtype == torch.uint8


def test_uint8_and_float_frames_encode_alike():
    tokenizer = ConvolutionalTokenizer(SMALL).eval()
    frames = frames_with_a_dot(2)
    torch.testing.assert_close(tokenizer.encode(frames), tokenizer.encode(frames.float() / 255))


def test_statistics_centre_and_scale_the_latents():
    torch.manual_seed(0)
    tokenizer = ConvolutionalTokenizer(SMALL).eval()
    frames = frames_with_a_dot(65)
    tokenizer.fit_statistics(frames)
    with torch.no_grad():
        latents = tokenizer.encode(frames)
    torch.testing.assert_close(latents.median(0).values, torch.zeros(4, 6, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.square().mean((0, 1, 2)).sqrt(), torch.ones(4), atol=1e-3, rtol=0)


def test_a_small_dot_survives_training_with_rarity_weights():
    """With plain MSE the dot vanishes into the background; inverse-frequency weights keep it."""
    frames, held_out = frames_with_a_dot(512), frames_with_a_dot(64, seed=1)

    def train(**weights) -> float:
        torch.manual_seed(0)
        config = ConvolutionalTokenizerConfig(height=16, width=24, channels=16, blocks=1, latent_noise=0.0, **weights)
        tokenizer = ConvolutionalTokenizer(config)
        tokenizer.fit_background(frames)
        optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
        for step in range(150):
            loss, _ = tokenizer(frames[(step * 32) % 512 :][:32])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 0.15)
            optimizer.step()
        tokenizer.eval()
        with torch.no_grad():
            return float(tokenizer(held_out)[1]["rare_psnr"])

    assert train() > train(foreground_weight=0.0, rare_weight=1e-9) + 3  # next to none, so that they are measured still


def test_rare_pixels_are_measured_where_they_count():
    frames = frames_with_a_dot(8)
    for weight in (0.0, 0.7):
        tokenizer = ConvolutionalTokenizer(dataclasses.replace(SMALL, rare_weight=weight))
        tokenizer.fit_background(frames)
        assert ("rare_psnr" in tokenizer(frames)[1]) == bool(weight)


def test_weights_of_a_frame_that_differs_everywhere_are_capped():
    tokenizer = ConvolutionalTokenizer(SMALL)
    frames = frames_with_a_dot(50)
    tokenizer.fit_background(frames)
    flash = torch.ones(1, 3, 16, 24)
    weights, rare = tokenizer.pixel_weights(flash)
    assert float(weights.mean()) <= 1 + SMALL.rare_budget + 1e-4
    assert float(rare.sum()) == 0


def test_wrong_frames_and_configs_are_explained():
    tokenizer = ConvolutionalTokenizer(SMALL)
    with pytest.raises(ValueError, match=r"64, 64, 3\).*16, 24, 3"):
        tokenizer.encode(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="patches of 4"):
        ConvolutionalTokenizer(ConvolutionalTokenizerConfig(height=30))
    with pytest.raises(ValueError, match="unknown tokenizer type 'magic'"):
        build_tokenizer("magic", {})
    with pytest.raises(ValueError, match="colour"):
        build_tokenizer("convolutional", {"colour": 3})
    with pytest.raises(ValueError, match="encoder_kernel is 2"):
        ConvolutionalTokenizer(ConvolutionalTokenizerConfig(encoder_kernel=2))
