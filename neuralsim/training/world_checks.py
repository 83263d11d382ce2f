"""What can be told of a world without recordings: its weights, and what it makes of its own starts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsim.actions import add_lane
from neuralsim.training.diagnostic_rules import Finding, Level
from neuralsim.training.weight_checks import Check, check_constant, check_finite, total_std
from neuralsim.world import World
from neuralsim.world_state import WorldState

LEAST = 0.01
"""Normalised latents have a spread of about 1; what moves less than this does not move."""
LEAST_LOGIT = 1e-4
"""Heads whose logits differ by less say the same of everything."""
FRAMES, LANES, ACTIONS, STEPS = 256, 8, 8, 4
"""At most so many frames are encoded, so many starts dreamed from, with so many actions held for so many steps."""


def check_world(world: World) -> list[Check]:
    """Everything; checks that need what an earlier one found broken are left out."""
    parts = {"tokenizer": world.tokenizer, "dynamics": world.dynamics, "heads": world.heads}
    tensors = {f"{part}.{name}": value for part, model in parts.items() for name, value in model.state_dict().items()}
    checks = [check_finite("weights", tensors), check_constant("layers", tensors), check_grid(world)]
    if any(finding.level == "error" for check in checks for finding in check.findings):
        return checks
    if world.starts:
        checks += [check_latents(world), *check_dreams(world), check_heads(world)]
    else:
        nothing = Finding(
            "no_starts",
            "note",
            "the world has no starts to dream from",
            "pack it again with --beginnings and --middles",
        )
        checks.append(Check("starts", "", (nothing,)))
    return [*checks, check_card(world)]


@torch.inference_mode()
def check_grid(world: World) -> Check:
    """Whether latents have the shape that all parts were built for."""
    frame = torch.zeros(1, *world.frame_shape, device=world.device, dtype=world.dtype)
    config = world.heads.config
    grids = {
        "the encoder's output": tuple(world.tokenizer.encode_raw(frame).shape[1:]),
        "the dynamics": tuple(world.dynamics.latent_shape),
        "the heads": (config.height, config.width, config.latent_channels),
    }
    wrong = [f"that of {part} is {grid}" for part, grid in grids.items() if grid != world.latent_shape]
    findings = []
    if wrong:
        findings.append(
            Finding(
                "latent_grid",
                "error",
                f"the tokenizer's latent shape is {world.latent_shape}, but {', '.join(wrong)}",
                "these parts do not belong together: pack the world from runs with one and the same tokenizer",
            )
        )
    return Check("latent shape", f"{world.latent_shape} in every part", tuple(findings))


def check_latents(world: World) -> Check:
    """Whether every latent channel tells frames apart."""
    frames = np.concatenate([start.frames for start in world.starts])
    frames = frames[:: -(-len(frames) // FRAMES)]
    if (frames == frames[:1]).all():
        level: Level = "warning" if len(frames) > 1 else "note"
        alike = Finding(
            "starts_alike", level, "all starts show one and the same frame", "pack the world with more of them"
        )
        return Check("latents", "", (alike,))
    latents = world.encode(frames[None])[0].float()
    # A channel may serve a single place on the screen: where it moves most is what counts.
    moves = latents.std(0).amax((0, 1))
    dead = (moves < LEAST).nonzero()[:, 0].tolist()
    findings = []
    if dead:
        every = len(dead) == len(moves)
        findings.append(
            Finding(
                "latents_dead",
                "error" if every else "warning",
                f"{'all' if every else len(dead)} of {len(moves)} latent channels are the same in all of {len(frames)} "
                f"frames (channels {', '.join(map(str, dead))}: standard deviation below {LEAST:g})",
                "train the tokenizer again, with a smaller --loop.learning-rate"
                if every
                else "train the tokenizer longer, or with fewer --model.latent-channels",
            )
        )
    return Check("latents", f"{len(moves)} channels, the quietest moves by {float(moves.min()):.2g}", tuple(findings))


def check_dreams(world: World) -> list[Check]:
    """Whether dreams differ from start to start, and from action to action."""
    indices = np.unique(np.linspace(0, len(world.starts) - 1, LANES).round().astype(int)).tolist()
    begin = WorldState.stack([world.start_at(i, seed=n) for n, i in enumerate(indices)])
    actions = different_actions(world)
    dreams = torch.stack([_hold(world, begin, action) for action in actions])
    if not bool(dreams.isfinite().all()):
        broken = Finding(
            "dreams_not_finite",
            "error",
            f"dreams hold NaN or infinity after {STEPS} steps",
            "go back to an earlier checkpoint, or dream in float32",
        )
        return [Check("dreams", "", (broken,))]
    differ = len(indices) > 1 and total_std(begin.latent) >= LEAST
    spread = total_std(dreams[0]) if differ else float(dreams[0].std())
    findings = []
    if spread < LEAST:
        findings.append(
            Finding(
                "prediction_collapsed",
                "error",
                f"dreams from {len(indices)} starts end in the same frame (standard deviation {spread:.2g}, below "
                f"{LEAST:g})",
                "the dynamics says the same whatever it sees: train it again, with a smaller --loop.learning-rate",
            )
        )
    checks = [Check("dreams", f"{len(indices)} starts lead to different frames (by {spread:.2g})", tuple(findings))]
    if len(actions) > 1:
        apart = float((dreams - dreams[:1]).abs().max())
        checks.append(Check("actions", f"{len(actions)} actions lead to different frames (by {apart:.2g})",
                            () if apart >= LEAST else (ignored(len(actions), apart),)))  # fmt: skip
    return checks


def ignored(actions: int, apart: float) -> Finding:
    """The finding of a world that is blind to actions."""
    return Finding(
        "actions_ignored",
        "error",
        f"{actions} actions, each held for {STEPS} steps, change no latent by more than {apart:.2g} (below {LEAST:g})",
        "the dynamics does not listen: see whether recordings hold various actions (neuralsim data show) that stand "
        "beside the right frames (action t leads from frame t to t + 1), and train it longer",
    )


def different_actions(world: World) -> np.ndarray:
    """At most :data:`ACTIONS` encoded actions ``(n, A)``, no two the same."""
    world.action_space.seed(0)
    drawn = [world.actions.encode(add_lane(world.action_space.sample())) for _ in range(8 * ACTIONS)]
    kinds = np.unique(np.concatenate(drawn), axis=0)
    return kinds[np.unique(np.linspace(0, len(kinds) - 1, ACTIONS).round().astype(int))]


def _hold(world: World, state: WorldState, action: np.ndarray) -> Tensor:
    """Latents ``(lanes, h, w, c)`` after some steps of one action; the noise is the same for every action."""
    actions = world.actions.decode(np.repeat(action[None], state.lanes, axis=0))
    for _ in range(STEPS):
        state, said = world.step(state, actions)
    return said.latent.float()


@torch.inference_mode()
def check_heads(world: World) -> Check:
    """Whether the heads tell the starts' transitions apart."""
    rewards, ends = [], []
    for start in world.starts:
        if len(start) > 1:
            latents = world.encode(start.frames[None]).float()
            before = world.heads.look_back(latents)[0, :-1]
            action = torch.from_numpy(world.actions.encode(start.actions)).to(world.device)
            said = world.heads(before, latents[0, 1:], action)
            rewards.append(said.reward_logits.log_softmax(-1))  # the same number on all logits says nothing
            ends.append(said.continue_logit)
    count = sum(map(len, ends))
    if count < 2:
        few = Finding("no_transitions", "note", "starts of one frame show no transitions", "pack longer starts")
        return Check("heads", "", (few,))
    findings = []
    # A world that only ever pays one reward may well say so.
    if world.config.reward_values is None or len(world.config.reward_values) > 1:
        findings += _constant("reward", torch.cat(rewards), count, "--clips.events")
    findings += _constant("continue", torch.cat(ends)[:, None], count, "--clips.ends")
    share = float((torch.cat(ends) < 0).float().mean())
    if share > 0.5:
        findings.append(
            Finding(
                "ends_everywhere",
                "error",
                f"the continue head ends the episode at {share:.0%} of {count} real transitions",
                "train the heads longer (neuralsim train dynamics --heads-only), with fewer ends (--clips.ends)",
            )
        )
    return Check("heads", f"reward and continue differ between {count} real transitions", tuple(findings))


def _constant(head: str, logits: Tensor, count: int, option: str) -> list[Finding]:
    differ = float(logits.float().std(0).max())
    if differ >= LEAST_LOGIT:
        return []
    return [
        Finding(
            f"{head}_constant",
            "warning",
            f"the {head} head says the same of {count} real transitions (its logits differ by {differ:.2g})",
            f"train the heads (neuralsim train dynamics --heads-only) on clips with more of what matters ({option})",
        )
    ]


def check_card(world: World) -> Check:
    """What the card tells: is a dreamed frame nearer to the real one than the last frame was?"""
    table = (world.card or {}).get("open_loop") or {}
    horizon = min(filter(str.isdigit, table), key=int, default=None)
    psnr = table[horizon].get("psnr", {}) if horizon is not None else {}
    dream, copy = (psnr.get(source, {}).get("value") for source in ("dream", "copy"))
    if dream is None or copy is None:
        unmeasured = Finding(
            "no_card", "note", "nobody has measured how good the dreams are", "neuralsim evaluate --save measures it"
        )
        return Check("card", "", (unmeasured,))
    findings = []
    if dream < copy:
        findings.append(
            Finding(
                "worse_than_copying",
                "warning",
                f"held out, at horizon {horizon}, dreams have {dream:.1f} dB and the copied last frame {copy:.1f} dB",
                "train the dynamics longer; see whether held-out and training recordings were made alike",
            )
        )
    seen = f"{dream:.1f} dB at horizon {horizon}, the copied last frame {copy:.1f} dB"
    return Check("card", seen, tuple(findings))
