"""What past frames would look like from where the camera looks now: for first-person worlds.

An action says by how much the camera turns, and a turn moves a picture in a way that needs no learning: whatever lies
in a direction is seen in that direction, near or far. So past frames are turned into the new view before the network
reads them, and the prediction starts from the last frame so turned, not from the last frame. What was seen some frames
ago and comes into view again lies where it belongs.

Who walks moves the picture as well, by how far things are away. So the last frame, once turned, is moved further by a
flow that the network tells from the past (two numbers per latent position), but for what hangs before the camera, a
hand or a bar of things. How well it then fits the next frame is a term of the loss by itself.

Turns happen in the plane of the screen and in parts of a latent position, so latents are first unfolded to a picture
(a learned one, of a few channels, finer than the latent grid) and folded again afterwards.

Legend: B lanes, n frames of history, h w c latent grid, A encoded action, v channels and f times the resolution of the
unfolded picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

if TYPE_CHECKING:
    from neuralsim.dynamics.convolutional import ConvolutionalDynamicsConfig

FINENESS = 4
"""Pixels of the unfolded picture per latent position along each side."""
USUAL_PITCH = math.radians(20.0)
"""How far players usually look up or down."""
PITCH_WEIGHT = 0.1
"""Part of the estimated pitch in the loss."""
STEEPEST = math.radians(89.0)
"""Pitch at which a camera stops, as far as anybody can see."""


def check_camera(config: ConvolutionalDynamicsConfig) -> None:
    """Sees to it that the options about the camera make sense.

    Raises:
        ValueError: If they do not; the message names the one.
    """
    places = tuple(config.camera)
    if places and (len(places) != 2 or not all(0 <= place < config.action_size for place in places)):
        raise ValueError(
            f"camera is {places}; it must be two places, of pitch and yaw, among the {config.action_size} numbers of "
            "an encoded action"
        )
    if not 0 < config.camera_degrees <= 180:
        raise ValueError(f"camera_degrees is {config.camera_degrees}; it must be above 0 and at most 180")
    if len(config.field_of_view) != 2 or not all(0 < angle < 180 for angle in config.field_of_view):
        raise ValueError(f"field_of_view is {config.field_of_view}; it must be two angles between 0 and 180 degrees")
    if config.view_channels < 1:
        raise ValueError(f"view_channels is {config.view_channels}; it must be at least 1")


@dataclass
class Turned:
    """The last frame, to be moved.

    Attributes:
        last: ``(B, h, w, c)``.
        picture: ``(B, v, y, x)``, unfolded.
        grid: ``(B, y, x, 2)``, where on it lies what the camera sees after its turn.
    """

    last: Tensor
    picture: Tensor
    grid: Tensor


class TurnedView(nn.Module):
    """Past latents as seen from where the camera looks after the action that is taken now, and the last one as moved.

    How far the camera looks up or down is not told by actions, only how that changes; but a turn about the vertical
    moves the picture otherwise where one looks at one's feet. The pitch is estimated from the last frame. It is learned
    from recordings that know it, as Minetest's do, and from others by what makes the turned frames fit.
    """

    def __init__(self, config: ConvolutionalDynamicsConfig) -> None:
        super().__init__()
        c, v = config.latent_channels, config.view_channels
        self.history = tuple(config.history)
        self.dead_zone = config.flow_dead_zone
        self.camera, self.degrees = tuple(config.camera), config.camera_degrees
        vertical, horizontal = config.field_of_view
        self.extent = (math.tan(math.radians(vertical) / 2), math.tan(math.radians(horizontal) / 2))
        # Not hidden layers: what these draw is measured, so that they learn faster than by Muon's even steps.
        self.picture_out = nn.Conv2d(c, v * FINENESS**2, 3, padding=1)
        self.latent_out = nn.Conv2d(v, c, FINENESS, stride=FINENESS, bias=False)
        self.flow_out = nn.Conv2d(config.channels, 2 + FINENESS**2, 3, padding=1)
        self.read = nn.Conv2d(len(self.history) * (v + 1), config.channels, FINENESS, stride=FINENESS)
        self.read_moved = nn.Conv2d(c, config.channels, 3, padding=1)
        self.pitch = nn.Sequential(
            nn.Conv2d(c, 32, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.SiLU()
        )
        self.pitch_out = nn.Linear(32 * math.ceil(config.height / 4), 1)
        # At first a picture shows a part of each latent, as a square: flows must matter for anybody to learn them.
        part_shown = nn.init.orthogonal_(torch.empty(v, c))
        nn.init.zeros_(self.picture_out.weight)
        nn.init.zeros_(self.picture_out.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.picture_out.weight[:, :, 1, 1] = part_shown.repeat_interleave(FINENESS**2, 0)
            self.latent_out.weight.copy_(part_shown.T[:, :, None, None].expand_as(self.latent_out.weight) / FINENESS**2)
        for part in (self.read, self.read_moved, self.flow_out, self.pitch_out):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def turn(self, context: Tensor, last: Tensor, actions: Tensor) -> tuple[Tensor, Turned]:
        """Turns the frames of the history.

        Args:
            context: ``(B, n, h, w, c)``, newest first.
            last: ``(B, h, w, c)``, the newest as it is to be moved, without noise.
            actions: ``(B, T, A)``, oldest first; the last is the one taken now, and T reaches back to the oldest frame.

        Returns:
            What the turned frames show, for the network that reads the past, ``(B, C, h, w)``; and what :meth:`move`
            needs of the last frame.
        """
        frames = context.shape[1]
        latents = rearrange(torch.cat([context, last[:, None]], dim=1), "b n h w c -> (b n) c h w")
        pictures = F.pixel_shuffle(self.picture_out(latents), FINENESS).unflatten(0, (-1, frames + 1))
        grid, inside = self.look(*self.turns(last, actions), pictures.shape[-2:])
        old = pictures[:, :frames].flatten(0, 1)
        turned = F.grid_sample(old.float(), grid, align_corners=False).to(old.dtype)
        seen = torch.cat([turned, inside.to(old.dtype)], dim=1)
        read = self.read(rearrange(seen, "(b n) v y x -> b (n v) y x", n=frames))
        return read, Turned(last, pictures[:, frames], grid.unflatten(0, (-1, frames))[:, 0])

    def move(self, turned: Turned, features: Tensor) -> Tensor:
        """The last frame as it looks after the action: turned, and moved by the flow that the features tell.

        Args:
            turned: From :meth:`turn`.
            features: ``(B, C, h, w)`` what has been read of the past.

        Returns:
            ``(B, h, w, c)``. It is the last frame itself where nothing moves, and where something comes into view that
            was not on it.
        """
        told = self.flow_out(features)
        flow = told[:, :2].float()
        if self.dead_zone and not self.training:
            flow = flow * (flow.norm(dim=1, keepdim=True) > self.dead_zone)
        flow = F.interpolate(flow, scale_factor=FINENESS, mode="bilinear", align_corners=False)
        # A hand or a bar of things neither turns with the camera nor flows.
        goes_along = torch.sigmoid(2 + F.pixel_shuffle(told[:, 2:], FINENESS))
        # From latent positions to the units of a grid, -1 to 1 from edge to edge.
        size = torch.tensor([2 / told.shape[3], 2 / told.shape[2]], device=flow.device)
        grid = turned.grid + flow.permute(0, 2, 3, 1) * size
        # A dream moves its picture anew with every step: what linear interpolation blurs a little is gone after ten.
        # And what cubic interpolation takes from beyond the edge would grow.
        moved = F.grid_sample(
            turned.picture.float(), grid, mode="bicubic", padding_mode="border", align_corners=False
        ).to(turned.picture.dtype)
        inside = (grid.abs() <= 1).all(-1)[:, None].to(moved.dtype)
        change = self.latent_out(inside * goes_along * (moved - turned.picture))
        return turned.last + change.permute(0, 2, 3, 1)

    def turns(self, last: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pitch of every frame of the history and of the new one, and the yaw between them, ``(B, n)`` in radians.

        Turns of a camera that has come to its stop are taken for turns: older frames are then misplaced.
        """
        by_action = actions[..., list(self.camera)].float() * math.radians(self.degrees)
        # Of each frame: all turns from it to the new frame.
        since = by_action.flip(1).cumsum(1)[:, [offset - 1 for offset in self.history]]
        pitch = self.estimate(last)[:, None]
        now = (pitch + since[:, :1, 0]).clamp(-STEEPEST, STEEPEST)
        then = (pitch + since[:, :1, 0] - since[..., 0]).clamp(-STEEPEST, STEEPEST)
        return then, now.expand_as(then), since[..., 1]

    def estimate(self, last: Tensor) -> Tensor:
        """Pitch ``(B,)`` in radians, down is positive, of the camera that sees ``(B, h, w, c)``."""
        rows = self.pitch(last.permute(0, 3, 1, 2)).mean(3)
        return STEEPEST * torch.tanh(self.pitch_out(rows.flatten(1))[:, 0].float())

    def pitch_loss(self, latents: Tensor, pitch: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        """How far estimates are from the truth, on some frames of clips.

        Args:
            latents: ``(B, T, h, w, c)``.
            pitch: ``(B, T)`` in degrees.
            noise: Frames are mixed with up to this much noise, as those of a dream have their faults.

        Returns:
            Its part of the loss, Huber's of the error in units of :data:`USUAL_PITCH`; and the mean absolute error in
            degrees, detached.
        """
        chosen = torch.randint(latents.shape[1], (4,), device=latents.device)
        frames, truth = latents[:, chosen].flatten(0, 1), torch.deg2rad(pitch[:, chosen].flatten())
        strength = torch.rand(len(frames), 1, 1, 1, device=frames.device) * noise
        off = self.estimate(torch.lerp(frames, torch.randn_like(frames), strength)) - truth
        # Before a wall or in the dark nobody can tell: such frames must not outweigh all others, nor the pictures.
        loss = F.smooth_l1_loss(off / USUAL_PITCH, torch.zeros_like(off), beta=0.25)
        return PITCH_WEIGHT * loss, torch.rad2deg(off.detach().abs().mean())

    def look(self, then: Tensor, now: Tensor, yaw: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Where on old pictures lies what the new view shows.

        Args:
            then: Pitch of the old views, ``(B, n)``.
            now: Pitch of the new one, ``(B, n)``.
            yaw: By how much the new one looks further to the right, ``(B, n)``.
            size: Rows and columns.

        Returns:
            Places for :func:`torch.nn.functional.grid_sample` ``(B * n, rows, columns, 2)``, and whether they are on
            the old picture ``(B * n, 1, rows, columns)``.
        """
        # Directions: right, down, ahead. A pitch turns about the first axis, a yaw about the second.
        with torch.autocast(then.device.type, enabled=False):  # low precision would be off by parts of a pixel
            turn = pitched(then).transpose(-1, -2) @ yawed(yaw) @ pitched(now)
            return self._project(turn, size)

    def _project(self, turn: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """:meth:`look` by rotations ``(B, n, 3, 3)`` from the new view to the old ones."""
        device = turn.device
        rows, columns = (
            ((torch.arange(n, device=device) + 0.5) / n * 2 - 1) * extent
            for n, extent in zip(size, self.extent, strict=True)
        )
        down, right = torch.meshgrid(rows, columns, indexing="ij")
        rays = torch.stack([right, down, torch.ones_like(down)]).flatten(1)
        old = rearrange(turn.flatten(0, 1) @ rays, "b d (y x) -> b y x d", y=size[0])
        ahead = old[..., 2]
        extent = torch.tensor([self.extent[1], self.extent[0]], device=device)
        grid = old[..., :2] / ahead.clamp(min=0.1)[..., None] / extent
        inside = (ahead > 0.1) & (grid.abs() <= 1).all(-1)
        # What lies behind is nowhere on the picture.
        grid = torch.where((ahead > 0.1)[..., None], grid, torch.full_like(grid, 3.0)).clamp(-3, 3)
        return grid, inside[:, None]


def pitched(angle: Tensor) -> Tensor:
    """Rotations ``(..., 3, 3)`` that look down by angles ``(...)``."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([one, zero, zero, zero, c, s, zero, -s, c], dim=-1).unflatten(-1, (3, 3))


def yawed(angle: Tensor) -> Tensor:
    """Rotations ``(..., 3, 3)`` that look to the right by angles ``(...)``."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1).unflatten(-1, (3, 3))
