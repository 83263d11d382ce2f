"""What ``neuralsim evaluate`` is to measure, checked before anything is: better to complain now than in an hour."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from neuralsim.agents.agent import ages, find_agent
from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.cost import LANES, SAMPLING_STEPS
from neuralsim.evaluation.counterfactuals import can_branch
from neuralsim.evaluation.frechet import FVD_FRAMES, VideoDistance
from neuralsim.evaluation.held_out import batches, check_held_out
from neuralsim.evaluation.image_quality import SMALLEST_LPIPS, Lpips, psnr, sharpness, ssim
from neuralsim.evaluation.inverse_dynamics import AFTER, BEFORE, READER_STEPS
from neuralsim.evaluation.open_loop import Metric
from neuralsim.evaluation.playing import make_players, real_game
from neuralsim.evaluation.probes import Probes, find_probes
from neuralsim.evaluation.ranking import PONG_POLICIES, check_policies, learned_here
from neuralsim.evaluation.returns import SPANS
from neuralsim.world import World
from neuralsim.world_files import AGENTS

HORIZONS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 128)
"""Steps into the dream at which it is compared with reality."""
RETURN_CLIPS = 64
"""At most so many clips for returns, which are long."""
LONG = (2_000, 10_000)
"""Steps at which long dreams are summed up."""

NOT_MEASURED_BY = ("out", "save", "parts", "workers")
"""Options that change no figure of a part, but for its rounding."""
OF_RANKING = ("policies", "agents", "ranking_lanes", "ranking_steps")
"""Options that change the order of policies alone."""
Part = Literal[
    "open-loop",
    "events",
    "returns",
    "closed-loop",
    "games",
    "ranking",
    "counterfactuals",
    "long-dreams",
    "cost",
    "films",
]
"""What can be measured, each by itself."""
PLAYED: tuple[Part, ...] = ("closed-loop", "games", "ranking", "counterfactuals", "long-dreams")
"""Parts that play the real environment as well."""


@dataclass
class EvaluateConfig:
    """Measures a world on held-out recordings and against the real environment, and writes its card.

    Open loop (recorded actions, dream against reality by horizon, beside dreams with wrong actions, copying the last
    frame and the tokenizer's ceiling), controllability, actions read off dreamed frames, how far a camera turns,
    rewards and ends on real transitions, returns, closed loop (a player in the dream and in the real game), the order
    of policies, the order of possible futures, long dreams and cost. What could not be measured is named in the card.
    """

    world: Annotated[str, tyro.conf.Positional]
    """World folder, bundled name or hub id."""
    data: Path = Path("data/pong-heldout")
    """Held-out recordings, of other seeds than those it was trained on."""
    out: Path = Path("report")
    """Folder for report.html, card.json, card.md and dream_beside_real.png."""
    parts: tuple[Part, ...] = get_args(Part)
    """What to measure; everything by default. The tokenizer is always measured."""
    env: str | None = None
    """The real environment, where another id than the recordings' leads to it (module:id imports the module)."""
    clips: int = 200
    """Clips for the open loop."""
    horizon: int = 128
    """Last step into the dream at which it is compared with reality."""
    sampling_steps: int = 4
    """Sampling steps K."""
    lpips: Path | None = None
    """torchvision's AlexNet weights (alexnet-owt-7be5be79.pth), to measure LPIPS as well."""
    i3d: Path | None = None
    """The I3D network as TorchScript (i3d_torchscript.pt), to measure FVD as well."""
    player: str | None = None
    """Policy of the closed loop, of long dreams and between counterfactuals; by default scripted=0.7 where there is a
    scripted player, else sticky-random."""
    lanes: int = 12
    """Lanes of the closed loop."""
    steps: int = 500
    """Steps per lane of the closed loop."""
    games: int = 40
    """Whole games of the player, in the dream and in the real game; a fifth as many of one that does nothing."""
    game_steps: int = 8_000
    """Steps after which a game is given up."""
    policies: tuple[str, ...] = ()
    """Policies to rank, as in neuralsim record (sb3=PATH.zip for agents of your own); by default those made for the
    game."""
    agents: tuple[Path, ...] = ()
    """Runs of neuralsim agent train whose agents of several ages are ranked as well; of those that learned in this
    world the exploitation gap is told. By default the agents in the world's folder, unless policies are named."""
    ranking_lanes: int = 16
    """Lanes per policy."""
    ranking_steps: int = 500
    """Steps per lane of the ranking."""
    moments: int = 32
    """Real moments from which futures branch off."""
    branches: int = 8
    """Futures of each."""
    branch_steps: int = 64
    """Steps of a future."""
    long_lanes: int = 4
    """Lanes of long dreams."""
    long_steps: int = 10_000
    """Steps of long dreams."""
    workers: int = 1
    """Processes that measure parts at the same time; they share the CPU threads. Speed is measured alone, at last."""
    save: bool = False
    """Also write the card into the world's folder."""


@dataclass
class Plan:
    """What is to be measured.

    Attributes:
        config: As asked for.
        world: The world.
        store: Held-out recordings.
        probes: What to look for on its frames, if anybody knows.
        horizons: Steps into the dream at which it is compared with reality.
        spans: Steps over which returns are summed.
        parts: What will be measured.
        player: Who plays.
        policies: Who is ranked.
        metrics: Measures of frames.
        video: Measure of films.
        not_measured: What will not be measured, and why.
    """

    config: EvaluateConfig
    world: World
    store: EpisodeStore
    probes: Probes | None
    horizons: tuple[int, ...]
    spans: tuple[int, ...]
    parts: set[Part]
    player: str
    policies: tuple[str, ...]
    metrics: dict[str, Metric] = field(default_factory=lambda: {"psnr": psnr})
    video: VideoDistance | None = None
    not_measured: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: EvaluateConfig) -> Plan:
        """Reads world and recordings.

        Raises:
            ValueError: If they do not belong together, or the config makes no sense.
            FileNotFoundError: If world, recordings or weights are not there.
            ModuleNotFoundError: If an extra is missing.
        """
        for name, least in _LEAST.items():
            if (value := getattr(config, name)) < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        world, store = World.load(config.world), EpisodeStore.open(config.data)
        horizons = (*(h for h in HORIZONS if h < config.horizon), config.horizon)
        check_held_out(world, store, world.dynamics.context_length + horizons[-1])
        world.check_steps(config.sampling_steps)
        if config.env is not None:
            world.config = dataclasses.replace(world.config, env_id=config.env)
        probes = find_probes(world.config.probes)
        longest = max(store.length(i) for i in store.ids) + 1 - world.dynamics.context_length
        scripted = world.config.probes == "pong"
        plan = cls(
            config,
            world,
            store,
            probes,
            horizons,
            tuple(span for span in SPANS if span <= longest),
            set(config.parts),
            config.player or ("scripted=0.7" if scripted else "sticky-random"),
            (
                *(config.policies or (PONG_POLICIES if scripted else ("random", "sticky-random", "noop"))),
                *agents_to_rank(config, world),
            ),
        )
        for part in get_args(Part):
            if part not in plan.parts:
                plan.not_measured[_NAMES[part]] = "left out (--parts)"
        plan._check_card()
        _make_folder(config.out)
        plan._check_players()
        plan._note_what_is_missing()
        if "open-loop" in plan.parts:
            plan._choose_metrics()
        return plan

    def _check_card(self) -> None:
        """Complains if a saved card would lose figures that it has."""
        lost = [part for part, key in KEYS.items() if part not in self.parts and (self.world.card or {}).get(key)]
        if self.config.save and lost:
            raise ValueError(
                f"the card of {self.config.world} would lose what it says of {', '.join(lost)}: measure these parts as "
                "well, or leave out --save"
            )

    def _check_players(self) -> None:
        """Leaves out what cannot be played here."""
        if not self.world.starts:
            self._leave_out("the world has no starts", "closed-loop", "games", "ranking", "long-dreams")
        if self.probes is None:
            self._leave_out("no probes know this game", "closed-loop")
        if self.probes is None or self.probes.scores is None:
            self._leave_out("no probes know a board of points", "games")
        if not self.parts.intersection(PLAYED):
            return
        try:
            env = real_game(self.world)
        except (ValueError, ModuleNotFoundError) as error:
            if set(self.config.parts) != set(get_args(Part)):
                raise  # somebody asked for it
            self._leave_out(f"the real environment cannot be made ({error})", *PLAYED)
            return
        make_players(self.world, [self.player])[0].close()
        if not can_branch(env):
            self._leave_out("the real environment cannot be set back", "counterfactuals")
        env.close()
        if "ranking" in self.parts:
            check_policies(self.world, self.policies)

    def _leave_out(self, why: str, *parts: Part) -> None:
        for part in parts:
            if part in self.parts:
                self.parts.remove(part)
                self.not_measured[_NAMES[part]] = why

    def _note_what_is_missing(self) -> None:
        if "returns" in self.parts:
            for span in SPANS[len(self.spans) :]:
                self.not_measured[f"Return over {span} steps"] = "the recordings are too short"
        if not self.world.config.trained_on.get("recordings", {}).get("content"):
            self.not_measured["Overlap with the training recordings"] = "the world does not say what it was trained on"
        if "open-loop" in self.parts and not self.reads_actions:
            self.not_measured["Actions read off dreamed frames"] = f"needs a horizon of {BEFORE + AFTER} or more"
        if "long-dreams" in self.parts:
            for step in LONG:
                if step > self.config.long_steps:
                    self.not_measured[f"Dreams of {step:,} steps"] = f"--long-steps is {self.config.long_steps:,}"
        if "ranking" in self.parts and not learned_here(self.world, self.policies):
            self.not_measured["Exploitation gap"] = "no agent of two or more ages learned in this dream (--agents RUN)"

    def _choose_metrics(self) -> None:
        if self.probes is None:  # nothing is known of what matters on a frame but that it should be sharp
            self.metrics["sharpness"] = sharpness
        if importlib.util.find_spec("torchmetrics") is None:
            self.not_measured["SSIM"] = 'pip install "neuralsim-gym[evaluation]"'
        else:
            self.metrics["ssim"] = ssim
        if self.config.lpips is None:
            self.not_measured["LPIPS"] = "its network's weights were not given (--lpips alexnet-owt-7be5be79.pth)"
        else:
            self.metrics["lpips"] = Lpips(self.config.lpips)
            if min(self.world.frame_shape[:2]) < SMALLEST_LPIPS:
                raise ValueError(f"LPIPS needs frames of {SMALLEST_LPIPS} pixels, these are {self.world.frame_shape}")
        if self.config.i3d is None:
            self.not_measured["FVD"] = "its network was not given (--i3d i3d_torchscript.pt)"
        elif self.config.horizon < FVD_FRAMES:
            raise ValueError(f"FVD looks at {FVD_FRAMES} frames, but horizon is {self.config.horizon}")
        else:
            self.video = VideoDistance(self.config.i3d)

    @property
    def reads_actions(self) -> bool:
        """Whether dreams are long enough to read actions off them."""
        return "open-loop" in self.parts and self.horizons[-1] >= BEFORE + AFTER

    @property
    def work(self) -> dict[str, int]:
        """How many steps of progress each part takes."""
        config = self.config
        clips = min(config.clips, RETURN_CLIPS)
        steps = {
            "open-loop": (READER_STEPS if self.reads_actions else 0) + batches(config.clips) * self.horizons[-1],
            "events": len(self.store),
            "returns": batches(clips) * max(self.spans, default=0),
            "closed-loop": 2 * config.steps,
            "games": 4 * config.game_steps,
            "ranking": 3 * config.ranking_steps,
            "counterfactuals": config.moments,
            "long-dreams": 2 * config.long_steps,
            "cost": len(LANES) * sum(k <= self.world.dynamics.max_steps for k in SAMPLING_STEPS),
        }
        return {part: count for part, count in steps.items() if part in self.parts}

    def fingerprint(self, part: str) -> str:
        """Short name of what a part measures and how: equal for calls in which it would measure the same."""
        ranks = part == "ranking"
        players = (self.player, *(self.policies if ranks else ()))
        config = {
            name: str(value)
            for name, value in vars(self.config).items()
            if name not in NOT_MEASURED_BY and (ranks or name not in OF_RANKING)
        }
        agents = [
            hashlib.sha256(find_agent(path).read_bytes()).hexdigest()
            for name, _, path in (player.partition("=") for player in players)
            if name == "agent"
        ]
        told = [self.world.config.weights_sha256, self.store.info.command, self.store.total_steps, config, agents]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What the card says of world and measurement beside figures."""
        config, world, store = self.config, self.world, self.store
        trained_on = dict(world.config.trained_on)
        if "recordings" in trained_on:
            trained_on["recordings"] = {k: v for k, v in trained_on["recordings"].items() if k != "content"}
        return {
            "world": world.config.name,
            "env_id": world.config.env_id,
            "env_kwargs": world.config.env_kwargs,
            "sampling_steps": config.sampling_steps,
            "notice": world.config.notice,
            "trained_on": trained_on,
            "held_out": {"episodes": len(store), "steps": store.total_steps, "command": store.info.command},
            "clips": config.clips,
            "lanes": config.lanes,
            "steps": config.steps,
            "player": self.player,
            "not_measured": self.not_measured,
            "parameters": {
                part: sum(p.numel() for p in getattr(world, part).parameters())
                for part in ("tokenizer", "dynamics", "heads")
            },
        }


def agents_to_rank(config: EvaluateConfig, world: World) -> list[str]:
    """Agents to rank, as policies.

    Raises:
        FileNotFoundError: If a folder that was named holds none.
    """
    if "ranking" not in config.parts:
        return []
    own = () if config.policies or world.source is None else (world.source,)
    found = {folder: ages(folder) for folder in config.agents or own}
    for folder, files in found.items():
        if config.agents and not files:
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no run {folder} (--agents)")
            raise FileNotFoundError(
                f"{folder} holds no agents of several ages ({folder / AGENTS}): name the folder of a run, "
                "neuralsim agent train pmpo --out RUN"
            )
    return [f"agent={path}" for files in found.values() for path in files]


KEYS: dict[Part, str] = {
    "open-loop": "open_loop",
    "events": "events",
    "returns": "returns",
    "closed-loop": "closed_loop",
    "games": "games",
    "ranking": "ranking",
    "counterfactuals": "counterfactuals",
    "long-dreams": "long_dreams",
    "cost": "cost",
}
"""Parts and what the card calls them."""


def _make_folder(folder: Path) -> None:
    """Makes the folder of the report, or says now that it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"the report cannot be written to --out {folder}: {error.strerror or error}") from error


_LEAST = {
    "horizon": 1, "workers": 1, "clips": 2, "lanes": 1, "steps": 1, "games": 2, "game_steps": 1, "ranking_lanes": 2,
    "ranking_steps": 1, "moments": 2, "branches": 2, "branch_steps": 1, "long_lanes": 1, "long_steps": 1000,
}  # fmt: skip
_NAMES: dict[Part, str] = {
    "open-loop": "Open loop, controllability and trust",
    "events": "Rewards and ends",
    "returns": "Returns",
    "closed-loop": "Closed loop",
    "games": "Whole games",
    "ranking": "Order of policies",
    "counterfactuals": "Order of possible futures",
    "long-dreams": "Long dreams",
    "cost": "Cost",
    "films": "Films",
}
