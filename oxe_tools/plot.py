"""Draw predicted and recorded actions as SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from finetune.policy.scores import Scores
from schemas.source import Array

EPISODES = 4  # maximum number of episodes to draw
WIDTH, HEIGHT, GAP, LEFT, TOP, EDGE = 240, 80, 16, 150, 60, 4  # pixels
RECORDED, PREDICTED = "#333333", "#d1495b"


def svg(scores: Scores, *, title: str) -> str:
    """Return an SVG image of the episodes with the most evaluated steps.

    It has one row per action dimension and one column per episode. Lines are recorded actions, and dots are
    predictions. All panels of a row have the same scale.
    """
    episodes = _episodes(scores)
    across, down = LEFT + len(episodes) * (WIDTH + GAP), TOP + len(scores.dims) * (HEIGHT + GAP)
    drawn = [_text(8, 18, title, size=14), _text(8, 34, "line: recorded; dots: predicted; x: steps of the episode")]
    drawn += [_text(LEFT + i * (WIDTH + GAP), TOP - 6, episode.name) for i, episode in enumerate(episodes)]
    for row, dim in enumerate(scores.dims):
        top, label = TOP + row * (HEIGHT + GAP), f"{dim} [{scores.sources[0].units[dim]}]"
        drawn += [_text(8, top + HEIGHT / 2, label), *_row(episodes, row, top=top)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{down}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>\n"])


@dataclass(frozen=True, slots=True)
class PlottedEpisode:
    """The indices of the evaluated steps of one episode, [T], and the first action of each step's chunk, [T, D]."""

    name: str
    step: Array
    recorded: Array
    predicted: Array


def _row(episodes: Sequence[PlottedEpisode], row: int, *, top: int) -> Iterator[str]:
    """Yield the SVG elements of one row, which shows one action dimension."""
    shown = np.concatenate([values[:, row] for episode in episodes for values in (episode.recorded, episode.predicted)])
    low, high = float(shown.min()), float(shown.max())
    yield from (_text(LEFT - 6, y, f"{v:.3g}", anchor="end") for y, v in ((top + 10, high), (top + HEIGHT, low)))
    for column, episode in enumerate(episodes):
        left = LEFT + column * (WIDTH + GAP)
        yield f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cccccc"/>'
        x = _scaled(episode.step, episode.step.min(), episode.step.max()) * (WIDTH - 2 * EDGE) + left + EDGE
        heights = (_scaled(values[:, row], low, high) for values in (episode.recorded, episode.predicted))
        line, dots = (top + HEIGHT - EDGE - height * (HEIGHT - 2 * EDGE) for height in heights)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, line, strict=True))
        yield f'<polyline points="{points}" fill="none" stroke="{RECORDED}" stroke-width="1.5"/>'
        for a, b in zip(x, dots, strict=True):
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2" fill="{PREDICTED}"/>'


def _scaled(values: Array, low: float, high: float) -> Array:
    """Scale values from the range `low` to `high` to the range 0 to 1."""
    return np.asarray((values - low) / ((high - low) or 1.0))


def _episodes(scores: Scores) -> list[PlottedEpisode]:
    """Select the episodes with the most evaluated steps."""
    steps = scores.steps
    keys, counts = np.unique(np.stack([steps.source, steps.episode], 1), axis=0, return_counts=True)
    plotted = []
    for source, episode in keys[np.argsort(-counts, kind="stable")[:EPISODES]].tolist():
        own = steps.of((steps.source == source) & (steps.episode == episode))
        own = own.of(np.unique(own.step, return_index=True)[1])
        name = f"{scores.sources[source].name}, episode {episode}"
        plotted.append(PlottedEpisode(name, own.step, own.recorded[:, 0], own.predicted[:, 0]))
    return plotted


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
