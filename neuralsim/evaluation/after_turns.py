"""What a thing does after it has met another: the hardest moment of a game, which clips from anywhere seldom show.

A ball flies straight for most of the time, and a dream that lets it is right in most clips. So dreams are begun at
fixed numbers of frames before the recorded turns: from the last frame before one, only the turn itself is to be
foreseen; from some frames before, also what leads there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.held_out import BATCH, Cut, read_clips
from neuralsim.evaluation.open_loop import dream_clips
from neuralsim.evaluation.probes import Probes, Thing, find, turns
from neuralsim.world import World

LEADS = (4, 2, 1, 0, -1)
"""Real frames end so many before the last one before a turn; -1: with the first after it."""
AFTER = 6
"""The thing is judged so many frames after the last one before its turn."""


def find_turns(thing: Thing, labels: dict[str, np.ndarray]) -> np.ndarray:
    """Frames after which a thing turns at once by what is hard to foresee, being there all the while.

    Of both ways of turning those count that training shows more often (:attr:`Thing.turn_shares`). Left out are turns
    with another one around, and those that take two steps, as when something is met in the middle of a step: there is
    no last frame before these. (Of Pong's bounces these are a third.)

    Args:
        thing: What to look at.
        labels: Ground truth ``(T + 1,)`` by the keys of the thing's probe.

    Returns:
        Indices of the last frames before turns, rising.
    """
    marked = turns(thing, labels, passing=False)
    found = []
    for frame in np.flatnonzero(marked == max(thing.turn_shares)):
        around = slice(frame - max(LEADS), frame + AFTER + 1)
        if around.start < 0 or around.stop > len(marked) + 1:
            continue
        there = np.asarray(labels[thing.present][around]) > 0.5
        if there.all() and (marked[around] > 0).sum() == 1:
            found.append(frame)
    return np.array(found, np.int64)


def after_turns(
    world: World,
    store: EpisodeStore,
    probes: Probes,
    count: int,
    steps: int,
    context: int = 0,
    seed: int = 5,
    progress: Callable[[], None] | None = None,
) -> dict[str, np.ndarray]:
    """Whether dreams have the first thing in its place after recorded turns.

    Args:
        world: The world.
        store: Held-out recordings with ground truth; without, there are no turns.
        probes: What to look for; the first thing counts.
        count: At most so many turns.
        steps: Sampling steps K.
        context: Real frames before a dream; by default as many as the dynamics can use.
        seed: Draws the turns, where there are more.
        progress: Called after each batch of 32.

    Returns:
        By lead (:data:`LEADS`, as "4 before", ... "1 after") ``(turns,)`` bool: whether the thing is within its
        tolerance :data:`AFTER` frames after the last one before its turn.
    """
    thing = probes.things[0]
    context = context or world.dynamics.context_length
    first = context + max(LEADS) - 1
    places = [(i, frame) for i in store.ids for frame in find_turns(thing, store.labels(i)).tolist() if frame >= first]
    drawn = np.random.default_rng(seed).permutation(len(places))[:count]
    right: dict[int, list[np.ndarray]] = {lead: [] for lead in LEADS}
    for begin in range(0, len(drawn), BATCH):
        chosen = [places[n] for n in drawn[begin : begin + BATCH]]
        for lead, hits in right.items():
            cuts = [Cut(i, frame - lead - context + 1) for i, frame in chosen]
            clips = read_clips(store, cuts, context, lead + AFTER)
            *_, last = dream_clips(world, clips, clips.actions, steps, begin)
            seen = find(probes, world.decode(last.latent).cpu().numpy())[thing.name]
            hits.append(seen.distance(find(probes, clips.future[:, -1])[thing.name]) <= thing.tolerance)
        if progress is not None:
            progress()
    return {
        f"{lead} before" if lead >= 0 else f"{-lead} after": np.concatenate(hits) if hits else np.zeros(0, bool)
        for lead, hits in right.items()
    }
