"""What plans are worth in a world: all candidates are dreamed side by side, in latents.

Legend: B games, N plans of each, H actions of a plan, A encoded action, G dreams, n latents that the prior sees.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsim.agents.agent import Agent
from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import GAMMA, check_gamma
from neuralsim.agents.planners.rewards import RewardFunction, check_learned_reward
from neuralsim.data.latents import fingerprint
from neuralsim.training.parts import tokenizer_fingerprint
from neuralsim.world import World, WorldState


@dataclass(frozen=True)
class Present:
    """Where B games stand.

    Attributes:
        state: To dream on from; the seed of a lane is that of the noise in which all its plans are compared.
        recent: ``(B, n, h, w, c)`` latents seen last, oldest first, for the prior.
    """

    state: WorldState
    recent: Tensor


@dataclass(frozen=True)
class _Dreams:
    """G dreams on their way: return so far, probability that the episode still goes on, discount of what comes."""

    state: WorldState
    recent: Tensor
    returns: Tensor
    alive: Tensor
    discount: float

    def select(self, index: Tensor) -> _Dreams:
        place = index.to(self.returns.device)
        rows = (self.recent[place], self.returns[place], self.alive[place])
        return _Dreams(self.state.select(index), *rows, self.discount)


class DreamedReturn:
    """The discounted return of plans, as a world dreams them.

    A step counts as much as it is likely to be reached: the product of the probabilities to go on, by the continue
    head, of all steps before. Rewards are the reward head's expectation, which tells plans apart that a reward rounded
    to what the game can pay would call alike; the end of a plan is worth what the prior says.

    All plans of a game are dreamed with the same noise, so that the better plan wins and not the luckier one; and as
    long as plans agree they are one dream. The number of dreams in a forward pass is that of different beginnings.

    Args:
        world: The world.
        space: Of the plans.
        reward: What steps pay instead of what the world learned; a plain function sees frames.
        prior: An agent whose policy proposes plans, and whose value is that of the last moment of a plan.
        terminal_value: Whether it is; by default where the reward is the world's, which the value is about. Agents
            that were kept to play alone have none.
        gamma: Discount per step of the environment; by default the prior's, or
            :data:`~neuralsim.agents.planners.planner.GAMMA`.
        sampling_steps: K.

    Attributes:
        dreamed: Steps dreamed so far, counted in every dream.

    Raises:
        ValueError: If the world has no rewards to go by, the prior does not belong to it, or a number makes no sense.
    """

    def __init__(
        self,
        world: World,
        space: PlanSpace,
        reward: RewardFunction | Callable[[Tensor], Any] | None = None,
        prior: Agent | None = None,
        terminal_value: bool | None = None,
        gamma: float | None = None,
        sampling_steps: int = 1,
    ) -> None:
        if space.actions.space != world.action_space:
            raise ValueError(f"the plans are of {space.actions.space}, and the world plays {world.action_space}")
        if reward is None:
            check_learned_reward(world)
        elif not isinstance(reward, RewardFunction):
            reward = RewardFunction(reward)
        self.world, self.space, self.reward = world, space, reward
        self.steps = world.check_steps(sampling_steps)
        self.policy = self.value = None
        learned = None
        if prior is not None:
            check_prior(prior, world)
            learned = prior.facts["trained"].get("gamma")
            self.policy, self.distribution = copy.deepcopy(prior.policy).to(world.device), prior.distribution
            counted = reward is None if terminal_value is None else terminal_value
            if counted and prior.value is not None:
                self.value = copy.deepcopy(prior.value).to(world.device)
        self.frames = 1 if prior is None else prior.config.frames
        if self.value is not None and None not in (gamma, learned) and gamma != learned:
            raise ValueError(
                f"gamma is {gamma}, and the prior's values have {learned}: leave gamma out, or plan without its values "
                "(terminal_value=False)"
            )
        self.gamma = check_gamma(next(g for g in (gamma, learned, GAMMA) if g is not None))
        self.dreamed = 0

    @torch.no_grad()
    def __call__(self, present: Present, plans: Tensor) -> Tensor:
        """What plans ``(B, N, H, A)`` are worth, ``(B, N)`` float32 on the CPU.

        Raises:
            ValueError: If a reward is no finite number.
        """
        games, count = plans.shape[:2]
        acts = plans.reshape(games * count, *plans.shape[2:]).numpy()
        dream = np.repeat(np.arange(games), count)  # of each plan: at first all of a game are one
        dreams = self._begin(present)
        for t in range(acts.shape[1]):
            _, first, following = np.unique(
                np.column_stack([dream, acts[:, t]]), axis=0, return_index=True, return_inverse=True
            )
            dreams = self._hold(dreams.select(torch.from_numpy(dream[first])), acts[first, t])
            dream = following.reshape(-1)
        return self._worth(dreams)[torch.from_numpy(dream)].reshape(games, count)

    @torch.no_grad()
    def propose(self, present: Present, count: int, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Lets the prior play: its likeliest plan, and others drawn from it.

        Args:
            present: Where B games stand.
            count: M.
            generators: B, each draws for its game alone.

        Returns:
            Plans ``(B, M, H, A)`` and what they are worth ``(B, M)``, on the CPU.

        Raises:
            ValueError: If there is no prior.
        """
        if self.policy is None:
            raise ValueError("nobody proposes plans: give a prior")
        games, plans = present.state.lanes, []
        dreams = self._begin(present).select(torch.arange(games).repeat_interleave(count))
        for _ in range(self.space.horizon):
            logits = self.policy(dreams.recent)[:, 0].float().cpu().unflatten(0, (games, count))
            # Continuous actions of a policy are bins; their centres are what it was taught with.
            rows = [
                torch.cat([self.distribution.mode(row[:1]), self.distribution.sample(row[1:], rng)])
                for row, rng in zip(logits, generators, strict=True)
            ]
            plans.append(torch.cat(rows))
            dreams = self._hold(dreams, plans[-1].numpy())
        together = torch.stack(plans, dim=1).unflatten(0, (games, count))
        return together, self._worth(dreams).reshape(games, count)

    def _begin(self, present: Present) -> _Dreams:
        nothing = torch.zeros(present.state.lanes, device=self.world.device)
        return _Dreams(present.state, present.recent.float(), nothing, nothing + 1, 1.0)

    def _hold(self, dreams: _Dreams, encoded: np.ndarray) -> _Dreams:
        """Takes one action ``(G, A)`` of the plans for as many steps as it is held."""
        actions = self.world.actions.decode(encoded)
        # Encoded anew: whole numbers are rounded when they are played.
        encoding = torch.from_numpy(self.world.actions.encode(actions)).to(self.world.device)
        state, recent, returns, alive = dreams.state, dreams.recent, dreams.returns, dreams.alive
        discount = dreams.discount
        for _ in range(self.space.repeat):
            before = state.recent.float()
            state, said = self.world.step(state, actions, steps=self.steps)
            latent = said.latent.float()
            heads = self.world.heads(before, latent, encoding)
            if self.reward is not None:
                reward = self.reward(self.world, before, encoding, said.latent)
            else:
                reward = heads.reward.float()
                if self.world.config.reward_range is not None:
                    reward = reward.clamp(*self.world.config.reward_range)
            returns = returns + discount * alive * reward
            alive = alive * heads.continue_logit.sigmoid()
            recent = torch.cat([recent[:, 1:], latent[:, None]], dim=1)
            discount *= self.gamma
            self.dreamed += state.lanes
        return _Dreams(state, recent, returns, alive, discount)

    def _worth(self, dreams: _Dreams) -> Tensor:
        returns = dreams.returns
        if self.value is not None:
            returns = returns + dreams.discount * dreams.alive * self.value.value(dreams.recent)
        return returns.cpu()


def check_prior(prior: Agent, world: World) -> None:
    """Makes sure that an agent plays in this world, and sees what it dreams.

    Raises:
        ValueError: If it plays other actions, or sees through another tokenizer.
    """
    if prior.action_space != world.action_space:
        raise ValueError(f"the prior plays {prior.action_space}, and the world {world.action_space}")
    if fingerprint(prior.tokenizer) != tokenizer_fingerprint(world):
        raise ValueError(
            f"the prior sees through another tokenizer than the world {world.config.name!r} has: train one with "
            f"neuralsim agent train clone --tokenizer {world.source or 'WORLD'}"
        )
