"""Plans: sequences of actions of any space, drawn from distributions that a planner improves.

A plan is made of encoded actions (:class:`~neuralsim.actions.ActionCodec`), and so is the mean of a distribution over
plans: one-hot blocks become chances, binary numbers the chance of a 1, continuous ones the mean of a Gaussian. The mean
of good plans is therefore the maximum-likelihood fit for every kind of action at once.

Legend: N plans, H actions of a plan, A size of an encoded action.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralsim.actions import ActionCodec


class PlanSpace:
    """What plans look like: their actions, how many, and for how many steps each is held.

    Args:
        actions: Codec of the action space.
        horizon: H, actions of a plan.
        repeat: Steps of the environment for which each of them is held.

    Attributes:
        size: A.
        steps: Steps of the environment that a plan looks ahead, H x repeat.
        even: ``(H, A)`` mean of the distribution that prefers nothing.

    Raises:
        ValueError: If ``horizon`` or ``repeat`` is below 1.
    """

    def __init__(self, actions: ActionCodec, horizon: int, repeat: int = 1) -> None:
        for name, value in (("horizon", horizon), ("repeat", repeat)):
            if value < 1:
                raise ValueError(f"{name} is {value}; a plan is at least 1 action, held for at least 1 step")
        self.actions, self.horizon, self.repeat = actions, horizon, repeat
        self.size, self.steps = actions.size, horizon * repeat
        self.blocks = [(slice(begin, begin + size), kind) for begin, size, kind in actions.blocks()]
        row = torch.zeros(self.size)
        for here, kind in self.blocks:
            row[here] = {"choice": 1 / (here.stop - here.start), "binary": 0.5, "continuous": 0.0}[kind]
        self.even = row.expand(horizon, -1).clone()

    def draw(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Plans from standard normal noise; noise that is correlated in time makes plans that are.

        A choice is drawn by the Gumbel-max rule, with uniform numbers that are the normal distribution function of the
        noise: its chances are those of ``mean`` whatever the correlations.

        Args:
            mean: ``(H, A)``.
            std: ``(H, A)``, of continuous numbers; what is drawn is clipped to their range -1 to 1.
            noise: ``(N, H, A)``.

        Returns:
            ``(N, H, A)``.
        """
        plans = torch.empty_like(noise)
        for here, kind in self.blocks:
            middle, drawn = mean[..., here], noise[..., here]
            if kind == "continuous":
                plans[..., here] = (middle + std[..., here] * drawn).clamp(-1, 1)
                continue
            # In float64, in which a far draw is not rounded to a chance of exactly 1.
            chance = torch.special.ndtr(drawn.double()).clamp(1e-12, 1 - 1e-12)
            if kind == "binary":
                plans[..., here] = (chance < middle).to(plans)
            else:
                likes = middle.double().log() - (-chance.log()).log()
                plans[..., here] = F.one_hot(likes.argmax(-1), drawn.shape[-1]).to(plans)
        return plans

    def uniform(self, noise: Tensor) -> Tensor:
        """Plans ``(N, H, A)`` of which none is likelier than another, from standard normal noise ``(N, H, A)``."""
        plans = self.draw(self.even, torch.ones_like(self.even), noise)
        for here, kind in self.blocks:
            if kind == "continuous":
                plans[..., here] = 2 * torch.special.ndtr(noise[..., here]) - 1
        return plans

    def likeliest(self, mean: Tensor) -> Tensor:
        """The likeliest plan of a distribution with this mean, or of many ``(..., H, A)``."""
        plan = mean.clamp(-1, 1)
        for here, kind in self.blocks:
            if kind == "choice":
                plan[..., here] = F.one_hot(mean[..., here].argmax(-1), here.stop - here.start).to(mean)
            elif kind == "binary":
                plan[..., here] = (mean[..., here] > 0.5).to(mean)
        return plan

    def open_up(self, mean: Tensor, share: float) -> Tensor:
        """Chances ``(H, A)`` of which a share is spread evenly, so that nothing is ruled out for ever."""
        opened = mean.clone()
        for here, kind in self.blocks:
            if kind != "continuous":
                opened[..., here] = torch.lerp(mean[..., here], self.even[..., here], share)
        return opened

    def shift(self, rows: Tensor, steps: int, fill: Tensor | None = None) -> Tensor:
        """What is left of plans, or of means ``(..., H, A)``, after some steps of the environment.

        Where an action was being held, the new one is the average of what it covers of two old ones.

        Args:
            rows: Plans or means.
            steps: How many steps have been taken.
            fill: ``(A,)`` what comes at the end; the last action once more if None.
        """
        held = rows.repeat_interleave(self.repeat, dim=-2)
        gone = min(steps, self.steps)
        last = held[..., -1:, :] if fill is None else fill
        tail = last.expand(*held.shape[:-2], gone, -1)
        return torch.cat([held[..., gone:, :], tail], dim=-2).unflatten(-2, (self.horizon, self.repeat)).mean(-2)
