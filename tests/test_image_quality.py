"""How alike frames look, and how alike sets of features are: hand-computed cases."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from neuralsim.evaluation.frechet import FVD_FRAMES, Moments, VideoDistance, VideoFeatures, frechet_distance
from neuralsim.evaluation.held_out import Clips
from neuralsim.evaluation.image_quality import Lpips, psnr, ssim


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def test_psnr_by_hand():
    black, grey = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 51, np.uint8)
    assert psnr(grey, black)[0] == pytest.approx(-10 * math.log10(0.04), abs=1e-4)


def test_ssim_by_hand():
    pytest.importorskip("torchmetrics")
    a = noise(3, 32, 32, 3)
    assert np.allclose(ssim(a, a), 1)
    assert (ssim(a, a[::-1].copy())[[0, 2]] < 0.1).all()
    dark, light = np.full((1, 32, 32, 3), 50, np.uint8), np.full((1, 32, 32, 3), 100, np.uint8)
    # Without variance only the term of the means is left.
    x, y, c = 50 / 255, 100 / 255, 0.01**2
    assert ssim(dark, light)[0] == pytest.approx((2 * x * y + c) / (x * x + y * y + c), abs=1e-3)


def moments(*batches):
    result = Moments()
    for batch in batches:
        result.add(batch)
    return result


def test_moments_in_batches_are_those_of_the_whole():
    x = np.random.default_rng(0).normal(1000, 0.1, (50, 3))
    whole = moments(x[:7], x[7:8], x[8:])
    assert np.allclose(whole.mean, x.mean(0))
    assert np.allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-6)


def test_frechet_distance_by_hand():
    a = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(moments(a), moments(a + [3, 4])) == pytest.approx(25)
    # Gaussians of one mean and covariances s^2 I and (2 s)^2 I: d (2 s - s)^2, with s^2 = 2/3.
    assert frechet_distance(moments(a), moments(2 * a)) == pytest.approx(2 * 2 / 3)
    with pytest.raises(ValueError, match="there are 1 and 4 samples of 2 and 2 features"):
        frechet_distance(moments(a[:1]), moments(a))


def alexnet_features():
    """AlexNet's convolutions as torchvision has them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A file like torchvision's, with random weights."""
    pytest.importorskip("torchmetrics")
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save({f"features.{name}": value for name, value in alexnet_features().state_dict().items()}, path)
    return path


def test_lpips_is_a_distance(alexnet):
    lpips = Lpips(alexnet)
    a, b = noise(2, 64, 64, 3), noise(2, 64, 64, 3, seed=1)
    assert np.allclose(lpips(a, a), 0)
    assert (lpips(a, b) > 0).all()
    assert np.allclose(lpips(a, b), lpips(b, a))
    near = np.clip(a.astype(int) + 3, 0, 255).astype(np.uint8)
    assert (lpips(a, near) < lpips(a, b)).all()


@torch.no_grad()
def test_lpips_by_hand(alexnet):
    """All layers, computed the long way from torchvision's layout."""
    lpips, features = Lpips(alexnet), alexnet_features()
    a, b = noise(1, 64, 64, 3), noise(1, 64, 64, 3, seed=1)

    def layers(frame):
        x = torch.from_numpy(frame).permute(2, 0, 1) / 127.5 - 1
        means, deviations = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((x - means[:, None, None]) / deviations[:, None, None])[None]
        found = []
        for n, layer in enumerate(features):
            x = layer(x)
            if n in (1, 4, 7, 9, 11):
                found.append(x[0] / x[0].norm(dim=0))
        return found

    expected = 0.0
    for first, second, weight in zip(layers(a[0]), layers(b[0]), lpips.linear, strict=True):
        expected += float(((first - second) ** 2 * weight[:, None, None]).sum(0).mean())
    assert lpips(a, b)[0] == pytest.approx(expected, rel=1e-3)


def test_other_weights_are_refused(alexnet, tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold AlexNet's weights"):
        Lpips(tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no file of weights"):
        Lpips(tmp_path / "broken.pth")
    with pytest.raises(FileNotFoundError, match="alexnet-owt"):
        Lpips(tmp_path / "none.pth")


class Brightness(nn.Module):
    """Stands for I3D: one feature per channel, the mean over frames and pixels."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert x.shape[1:] == (3, 16, 224, 224)
        assert not rescale
        assert not resize
        assert return_features
        return x.mean((2, 3, 4))


def test_video_features(tmp_path):
    torch.jit.script(Brightness()).save(str(tmp_path / "i3d.pt"))
    features = VideoFeatures(tmp_path / "i3d.pt")
    clips = np.stack([np.full((FVD_FRAMES + 2, 8, 8, 3), value, np.uint8) for value in (0, 255)])
    clips[:, FVD_FRAMES:] = 7  # not looked at
    assert np.allclose(features(clips), [[-1] * 3, [1] * 3], atol=1e-3)
    with pytest.raises(ValueError, match="clips have 4 frames"):
        features(clips[:, :4])
    (tmp_path / "broken.pt").write_bytes(b"no network")
    with pytest.raises(ValueError, match="no TorchScript file"):
        VideoFeatures(tmp_path / "broken.pt")


def test_fvd_tells_a_film_from_its_like(tmp_path):
    torch.jit.script(Brightness()).save(str(tmp_path / "i3d.pt"))
    colours = np.random.default_rng(0).integers(256, size=(6, 1, 1, 1, 3), dtype=np.uint8)
    frames = np.broadcast_to(colours, (6, 24, 8, 8, 3))
    clips = Clips(frames, np.zeros((6, 23, 1)), np.zeros((6, 23)), context=8, cuts=[])
    same, darker = (VideoDistance(tmp_path / "i3d.pt") for _ in range(2))
    for begin in (0, 3):  # in batches
        part = dataclasses.replace(clips, frames=frames[begin : begin + 3])
        same.see(part.future, part)
        darker.see(part.future // 2, part)
    assert same.figures()["dream"] == pytest.approx(0, abs=1e-5)
    assert same.figures()["clips"] == 6
    assert darker.figures()["dream"] > 0.1
