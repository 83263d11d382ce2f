"""``neuralsim train tokenizer``: frames to latents, the first model of a world."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neuralsim.data.episodes import EpisodeStore
from neuralsim.pictures import strip, write_picture
from neuralsim.tokenizers.convolutional import ConvolutionalTokenizer, ConvolutionalTokenizerConfig
from neuralsim.training.held_out import split_episodes
from neuralsim.training.loop import LoopConfig, TrainingRun
from neuralsim.training.parts import part_config, save_part


@dataclass
class TokenizerRun:
    """Trains a tokenizer on recorded frames.

    Held-out PSNR, and PSNR on rare foreground pixels (Pong's ball), are reported while it trains; strips of real
    frames over their reconstructions are written to OUT/pictures.
    """

    data: Path = Path("data/pong")
    """Recorded episodes (neuralsim record)."""
    held_out: Path | None = None
    """Episodes for the figures; by default a twentieth of the data (at least one episode), which is then not
    trained on."""
    out: Path = Path("runs/tokenizer")
    """Folder of the run; the same command resumes it."""
    batch_size: int = 32
    """Frames per step."""
    max_frames: int = 200_000
    """Frames kept in memory (12 KB each at 64x64); longer recordings are thinned evenly."""
    model: ConvolutionalTokenizerConfig = field(default_factory=ConvolutionalTokenizerConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=4000, gradient_clip=0.15, learning_rate=1.5e-3))

    @staticmethod
    def presets() -> dict[str, TokenizerRun]:
        """Defaults by name."""
        # A first-person view is all foreground; what counts is detail, so more channels and less noise on them.
        voxels = TokenizerRun(
            data=Path("data/explore"),
            model=ConvolutionalTokenizerConfig(
                latent_channels=12, latent_noise=0.05, foreground_weight=0.0, rare_weight=0.0
            ),
            loop=LoopConfig(steps=6000, gradient_clip=0.15, learning_rate=1.5e-3),
        )
        return {"pong": TokenizerRun(), "minetest": voxels}


def load_frames(store: EpisodeStore, ids: list[int], limit: int) -> Tensor:
    """Frames of the episodes, thinned evenly to at most ``limit``: uint8 ``(N, H, W, 3)``."""
    total = sum(store.length(i) + 1 for i in ids)
    stride = max(1, -(-total // limit))
    return torch.from_numpy(np.concatenate([store.frames(i, 0, store.length(i) + 1)[::stride] for i in ids]))


def train_tokenizer(run: TokenizerRun) -> None:
    """Trains, evaluates and saves a tokenizer as ``OUT/tokenizer.safetensors`` (averaged weights)."""
    store = EpisodeStore.open(run.data)
    train_ids, held_store, held_ids = split_episodes(store, run.held_out)
    frames = load_frames(store, train_ids, run.max_frames)
    held = load_frames(held_store, held_ids, 2000)
    height, width, _ = frames.shape[1:]
    model_config = dataclasses.replace(run.model, height=height, width=width)
    torch.manual_seed(run.loop.seed)
    model = ConvolutionalTokenizer(model_config)
    sample = torch.from_numpy(np.random.default_rng(run.loop.seed).choice(len(frames), min(len(frames), 3000), False))
    model.fit_background(frames[sample])

    def draw_batch(step: int) -> Tensor:
        rng = np.random.default_rng((run.loop.seed, step))
        return frames[torch.from_numpy(rng.integers(len(frames), size=run.batch_size))]

    def evaluate(model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        assert isinstance(model, ConvolutionalTokenizer)
        device = model.background.device
        rows = [model(part.to(device))[1] for part in held.split(100)]
        picked = held[:: max(1, len(held) // 12)][:12]
        model.fit_statistics(frames[sample[:1000]])
        pair = [picked.numpy(), model.decode(model.encode(picked.to(device))).cpu().numpy()]
        picture = np.concatenate([strip(row, len(row)) for row in pair])
        write_picture(folder / "pictures" / f"{step:07d}.png", picture, scale=2)
        return {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}

    training = TrainingRun(
        model,
        draw_batch,
        run.out,
        run.loop,
        {
            "kind": "tokenizer",
            "type": model.type_name,
            "env_id": store.info.env_id,
            "episodes": len(train_ids),
            "frames": len(frames),
            "batch_size": run.batch_size,
            "model": dataclasses.asdict(model_config),
            "loop": dataclasses.asdict(run.loop),
        },
        evaluate,
    )
    training.run()
    model.load_state_dict(training.ema)
    model.eval()
    model.fit_statistics(frames[sample])
    save_part(run.out / "tokenizer.safetensors", model, "tokenizer", part_config(model))
