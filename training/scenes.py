"""Drawn scenes: pictures of shapes with known objects, so that a model meets kinds that no data set at hand shows.

Blobs, nuclei, cells with arms, rods, branching lines, tilings with membranes, rings, nested and porous shapes; filled,
outlined, in relief, with halos, told apart by texture alone, in transmitted light or fluorescence; with shading, clutter and
noise. Everything follows from the random generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from recipe import normalise
from scipy import ndimage
from scipy.spatial import cKDTree
from torch.nn import functional as F

SCENE = 192
"""Edge of a drawn scene."""

Labels = NDArray[np.int32]
Grey = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, edge: int, grain: float) -> Grey:
    """Return noise of mean 0 and standard deviation 1 whose grains are about `grain` pixels."""
    coarse = max(3, round(edge / max(grain, 1)))
    small = torch.from_numpy(rng.standard_normal((1, 1, coarse, coarse)).astype(np.float32))
    grown = F.interpolate(small, (edge, edge), mode="bicubic", align_corners=True)[0, 0].numpy()
    return (grown - grown.mean()) / max(float(grown.std()), 1e-6)


def stamp(labels: Labels, inside: NDArray[np.bool_], top: int, left: int, apart: bool) -> None:
    """Add one object, without covering others; with `apart` it keeps clear of them."""
    height, width = inside.shape
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, labels.shape[0]), min(left + width, labels.shape[1])
    if y1 - y0 < 4 or x1 - x0 < 4:
        return
    part = inside[y0 - top : y1 - top, x0 - left : x1 - left]
    here = labels[y0:y1, x0:x1]
    if apart and (here[part] > 0).any():
        return
    here[part & (here == 0)] = labels.max() + 1


def blob(rng: np.random.Generator, radius: float, wobble: float, stretch: float) -> NDArray[np.bool_]:
    """Return a star-shaped blob in its bounding square."""
    reach = int(np.ceil(radius * stretch * (1 + 2 * wobble))) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) * stretch
    angle = np.arctan2(v, u)
    edge = np.ones_like(angle)
    for k in range(2, 7):
        edge += wobble / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v) / np.sqrt(stretch) < radius * edge


def blobs(rng: np.random.Generator) -> Labels:
    """Cells and nuclei: alone or touching."""
    labels = np.zeros((SCENE, SCENE), dtype=np.int32)
    radius, apart = np.exp(rng.uniform(np.log(6), np.log(40))), rng.random() < 0.4
    wobble, stretch = rng.uniform(0, 0.5), rng.uniform(1, 2.2)
    for _ in range(int(min(40, rng.uniform(0.3, 0.9) * SCENE**2 / (np.pi * radius**2))) + 1):
        shape = blob(rng, radius * np.exp(rng.normal(0, 0.2)), wobble, stretch)
        top, left = rng.integers(-len(shape) // 2, SCENE - len(shape) // 2, 2)
        stamp(labels, shape, int(top), int(left), apart)
    return labels


def nuclei(rng: np.random.Generator) -> Labels:
    """Nuclei: round or oval, small to very large, alone or in clusters; now and then none at all."""
    labels = np.zeros((SCENE, SCENE), dtype=np.int32)
    if rng.random() < 0.1:
        return labels
    radius, apart = np.exp(rng.uniform(np.log(5), np.log(42))), rng.random() < 0.4
    wobble, stretch = rng.uniform(0, 0.25), rng.uniform(1, 1.8)
    centers = rng.uniform(0, SCENE, (rng.integers(1, 6), 2))
    clustered = rng.random() < 0.5
    for _ in range(int(min(70, rng.uniform(0.05, 0.7) * SCENE**2 / (np.pi * radius**2))) + 1):
        shape = blob(rng, radius * np.exp(rng.normal(0, 0.2)), wobble, stretch)
        middle = rng.uniform(0, SCENE, 2)
        if clustered:
            middle = centers[rng.integers(len(centers))] + rng.normal(0, 2.5 * radius, 2)
        top, left = (middle - len(shape) / 2).astype(int)
        stamp(labels, shape, int(top), int(left), apart)
    return labels


def spread(rng: np.random.Generator) -> Labels:
    """Cells that cling to glass: a body with a few arms, alone or in touch."""
    labels = np.zeros((SCENE, SCENE), dtype=np.int32)
    radius, apart = np.exp(rng.uniform(np.log(7), np.log(26))), rng.random() < 0.4
    longest = rng.uniform(0.3, 2.5)
    for _ in range(int(min(30, rng.uniform(0.1, 0.6) * SCENE**2 / (np.pi * radius**2))) + 1):
        size = radius * np.exp(rng.normal(0, 0.25))
        arms = rng.integers(0, 6)
        length = rng.uniform(0.2, 1, arms) * longest
        reach = int(np.ceil(size * 1.6 * (1 + length.max(initial=0)))) + 1
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
        angle, edge = np.arctan2(y, x), np.ones((2 * reach + 1,) * 2, dtype=np.float32)
        for k in range(2, 6):
            edge += 0.3 / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        for far in length:
            away = np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi))))
            edge += far * np.exp(-((away / rng.uniform(0.12, 0.4)) ** 2))
        shape = ndimage.binary_opening(np.hypot(y, x) < size * edge, iterations=1)
        top, left = rng.integers(-reach, SCENE - reach, 2)
        stamp(labels, shape, int(top), int(left), apart)
    return labels


def curve(rng: np.random.Generator, start: NDArray[np.float64], length: float, bend: float) -> NDArray[np.float64]:
    """Return the points, a pixel apart, of a line that turns slowly."""
    turns = np.cumsum(rng.normal(0, bend, max(2, int(length)))) + rng.uniform(0, 2 * np.pi)
    return start + np.cumsum(np.stack([np.sin(turns), np.cos(turns)], axis=1), axis=0)


def near(points: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Return the pixels of the scene within `radius` of a point."""
    canvas = np.ones((SCENE, SCENE), dtype=bool)
    p = np.round(points).astype(int)
    p = p[((p >= 0) & (p < SCENE)).all(1)]
    if not len(p):
        return ~canvas
    canvas[p[:, 0], p[:, 1]] = False
    return ndimage.distance_transform_edt(canvas) <= radius


def rods(rng: np.random.Generator) -> Labels:
    """Bacteria, fibres: capsules, straight or bent."""
    labels = np.zeros((SCENE, SCENE), dtype=np.int32)
    radius, length = rng.uniform(2.5, 10), rng.uniform(15, 90)
    bend, apart = rng.uniform(0, 0.06), rng.random() < 0.5
    for _ in range(rng.integers(3, 14)):
        line = curve(rng, rng.uniform(0, SCENE, 2), length * np.exp(rng.normal(0, 0.2)), bend)
        stamp(labels, near(line, radius), 0, 0, apart)
    return labels


def branches(rng: np.random.Generator) -> Labels:
    """Neurites, vessels, roots: lines that branch."""
    labels = np.zeros((SCENE, SCENE), dtype=np.int32)
    for _ in range(rng.integers(1, 5)):
        lines = [curve(rng, rng.uniform(20, SCENE - 20, 2), rng.uniform(50, 170), 0.08)]
        for _ in range(rng.integers(1, 6)):
            trunk = lines[rng.integers(len(lines))]
            lines.append(curve(rng, trunk[rng.integers(len(trunk))], rng.uniform(20, 80), 0.08))
        shape = near(np.concatenate(lines), rng.uniform(1.5, 5))
        if rng.random() < 0.5:
            soma = lines[0][0]
            shape |= near(soma[None], rng.uniform(8, 18))
        stamp(labels, shape, 0, 0, apart=False)
    return labels


def tiling(rng: np.random.Generator) -> Labels:
    """Tissue, neuropil: cells that fill the plane, with or without membranes (label 0)."""
    count = int(np.exp(rng.uniform(np.log(6), np.log(120))))
    seeds = rng.uniform(-20, SCENE + 20, (count, 2))
    y, x = np.mgrid[:SCENE, :SCENE].astype(np.float32)
    warp, grain = rng.uniform(0, 10), rng.uniform(15, 50)
    y += warp * smooth_noise(rng, SCENE, grain)
    x += warp * smooth_noise(rng, SCENE, grain) * rng.uniform(0.5, 2)
    distance, index = cKDTree(seeds).query(np.stack([y.ravel(), x.ravel()], axis=1), k=2)
    labels = (index[:, 0] + 1).astype(np.int32).reshape(SCENE, SCENE)
    membrane = (distance[:, 1] - distance[:, 0]).reshape(SCENE, SCENE) < rng.choice([0, rng.uniform(1, 8)])
    labels[membrane] = 0
    if rng.random() < 0.3:
        labels[np.isin(labels, rng.permutation(count)[: int(count * rng.uniform(0, 0.5))] + 1)] = 0
    return labels


def depths(labels: Labels) -> Iterator[tuple[int, tuple[slice, ...], NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield each object's number, box, pixels in the box, and how deep they lie: 0 outside to 1 at its innermost."""
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            mine = labels[box] == number
            depth = ndimage.distance_transform_edt(np.pad(mine, 1))[1:-1, 1:-1]
            yield number, box, mine, depth / max(float(depth.max()), 1)


def rings(rng: np.random.Generator) -> Labels:
    """Vesicles, mitochondria, beads: objects with a hole, or only their rims, or what is in them."""
    labels = blobs(rng)
    deep = np.zeros(labels.shape, dtype=np.float32)
    for _, box, mine, depth in depths(labels):
        deep[box] += np.where(mine, depth, 0)
    cut = rng.uniform(0.25, 0.7)
    return np.where(deep > cut, 0, labels) if rng.random() < 0.6 else np.where(deep > cut, labels, 0)


def pores(rng: np.random.Generator) -> Labels:
    """Shapes without any rule: the level sets of noise."""
    noise = smooth_noise(rng, SCENE, rng.uniform(8, 45)) + rng.uniform(0, 0.4) * smooth_noise(rng, SCENE, 5)
    return ndimage.label(noise > rng.uniform(-0.2, 1.0))[0].astype(np.int32)


Kind = Callable[[np.random.Generator], Labels]


def paint(labels: Labels, rng: np.random.Generator) -> Grey:
    """Return a picture of a scene: fill, outline, relief, halo, textures, shading and clutter in random strengths."""
    inside = labels > 0
    soft = ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(0.4, 1.5))
    different = np.zeros_like(inside)
    different[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    different[1:] |= labels[1:] != labels[:-1]
    outline = ndimage.gaussian_filter(different.astype(np.float32), rng.uniform(0.6, 2.0))
    outline /= max(float(outline.max()), 1e-6)
    style = rng.choice(["fill", "outline", "relief", "halo", "texture"], p=[0.4, 0.22, 0.14, 0.12, 0.12])
    levels = rng.uniform(0, 1, labels.max() + 1).astype(np.float32)
    own = levels[labels] * inside
    fine, coarse = smooth_noise(rng, SCENE, rng.uniform(1, 4)), smooth_noise(rng, SCENE, rng.uniform(5, 20))
    strength = np.exp(rng.uniform(np.log(0.02), np.log(0.35)))
    texture = strength * np.where(inside, fine, coarse if rng.random() < 0.5 else fine * rng.uniform(0.2, 1))
    if style == "fill":
        picture = soft * rng.uniform(0.5, 1) + rng.uniform(0, 0.6) * own + outline * rng.choice([0, rng.normal(0, 0.4)])
    elif style == "outline":
        picture = outline + rng.uniform(0, 0.25) * soft + rng.uniform(0, 0.2) * own
    elif style == "relief":
        height = ndimage.gaussian_filter(inside + 0.5 * levels[labels], rng.uniform(1, 4))
        turn = rng.uniform(0, 2 * np.pi)
        dy, dx = np.gradient(height)
        slope = dy * np.sin(turn) + dx * np.cos(turn)
        picture = slope / max(float(np.abs(slope).max()), 1e-6) + rng.uniform(-0.2, 0.2) * soft
        texture = texture * rng.uniform(0.3, 1.5)
    elif style == "halo":
        picture = soft * rng.uniform(-0.4, 1) - ndimage.gaussian_filter(soft, rng.uniform(3, 9)) + 0.3 * outline
    else:
        grains = (smooth_noise(rng, SCENE, rng.uniform(1, 3)), smooth_noise(rng, SCENE, rng.uniform(4, 10)))
        first, second = grains if rng.random() < 0.5 else grains[::-1]
        picture = np.where(inside, first, second * rng.uniform(0.1, 1)) * 0.3
    if rng.random() < 0.5:  # organelles: clutter that is not the object's boundary
        spots = smooth_noise(rng, SCENE, rng.uniform(3, 9)) > rng.uniform(1.2, 2.2)
        where = inside if rng.random() < 0.7 else np.ones_like(inside)
        picture = picture + rng.normal(0, 0.4) * ndimage.gaussian_filter((spots & where).astype(np.float32), 0.8)
    shading = rng.uniform(0, 0.3) * smooth_noise(rng, SCENE, rng.uniform(60, 190))
    picture = (picture + texture + shading).astype(np.float32)
    return normalise(picture, (1.0, 99.8)).astype(np.float32)


def shine_through(labels: Labels, rng: np.random.Generator) -> Grey:
    """Return a picture of a scene in transmitted light: phase contrast, DIC or bright-field of one map of thickness.

    Phase contrast shows thickness less its own surroundings, whence halos and shade-off; DIC shows its slope; a
    bright-field image out of focus its curvature. Round bright cells, debris and rings out of focus are among it.
    """
    count = int(labels.max())
    amplitude = np.exp(rng.normal(0, rng.uniform(0, 0.5), count + 1))
    amplitude[rng.random(count + 1) < 0.08] *= rng.uniform(2, 5)  # rounded up
    thick, flat = np.zeros(labels.shape, dtype=np.float32), rng.uniform(0.25, 1.5)
    core, depth_of_core = rng.uniform(0.4, 0.9), rng.normal(0, 0.6)
    for number, box, mine, depth in depths(labels):
        dome = depth**flat
        thick[box] += mine * amplitude[number] * (dome + depth_of_core * (dome > core))
    inside = labels > 0
    thick = ndimage.gaussian_filter(thick, rng.uniform(0.4, 1.2))
    grains = np.clip(smooth_noise(rng, SCENE, rng.uniform(2, 6)), -1, 3)
    thick += rng.uniform(0, 0.2) * grains * inside + rng.uniform(0, 0.05) * grains
    for _ in range(rng.integers(0, 12) if rng.random() < 0.5 else 0):  # debris, dust, rings out of focus
        y, x = np.mgrid[:SCENE, :SCENE].astype(np.float32)
        away = np.hypot(y - rng.uniform(0, SCENE), x - rng.uniform(0, SCENE))
        if rng.random() < 0.6:
            thick += rng.normal(0, 0.8) * np.exp(-((away / rng.uniform(1, 2.5)) ** 2))
        else:
            thick += rng.normal(0, 0.3) * np.exp(-(((away - rng.uniform(4, 20)) / rng.uniform(1, 4)) ** 2))
    way = rng.choice(["phase", "relief", "bright"], p=[0.5, 0.25, 0.25])
    if way == "phase":
        wide = rng.uniform(3, 14)
        picture = thick - rng.uniform(0.6, 1) * ndimage.gaussian_filter(thick, wide)
        picture = np.sin(rng.uniform(0.5, 2) * rng.choice([-1, -1, 1]) * picture)
    elif way == "relief":
        turn = rng.uniform(0, 2 * np.pi)
        dy, dx = np.gradient(ndimage.gaussian_filter(thick, rng.uniform(0.3, 1.5)))
        picture = 3 * (dy * np.sin(turn) + dx * np.cos(turn)) + rng.uniform(-0.1, 0.1) * thick
    else:
        narrow = rng.uniform(0.5, 2)
        picture = ndimage.gaussian_filter(thick, narrow) - ndimage.gaussian_filter(thick, narrow * rng.uniform(1.5, 3))
        picture = rng.choice([-3, 3]) * picture - rng.uniform(0, 0.4) * thick
    picture += np.exp(rng.uniform(np.log(0.005), np.log(0.1))) * smooth_noise(rng, SCENE, rng.uniform(1, 3))
    picture += rng.uniform(0, 0.2) * smooth_noise(rng, SCENE, rng.uniform(60, 190))
    return normalise(picture.astype(np.float32), (1.0, 99.8)).astype(np.float32)


def glow(labels: Labels, rng: np.random.Generator) -> Grey:
    """Return a picture of a scene in fluorescence: bright domes with chromatin, haze, debris, photons and a camera.

    What lies out of focus (wide, faint, without texture) and what is smaller than a nucleus are not objects.
    """
    picture = np.zeros(labels.shape, dtype=np.float32)
    spread_of_levels, flat = rng.uniform(0, 0.7), rng.uniform(0.05, 0.8)
    fine, coarse = smooth_noise(rng, SCENE, rng.uniform(1.5, 5)), smooth_noise(rng, SCENE, rng.uniform(5, 20))
    texture = 1 + rng.uniform(0, 0.35) * fine + rng.uniform(0, 0.35) * coarse
    spots = smooth_noise(rng, SCENE, rng.uniform(4, 12)) > rng.uniform(1.0, 2.5)
    texture = np.where(spots, texture * rng.choice([rng.uniform(0.2, 0.7), rng.uniform(1.3, 2.5), 1.0]), texture)
    condensed, lumps = rng.uniform(0, 0.15), smooth_noise(rng, SCENE, rng.uniform(3, 7))
    for _, box, mine, depth in depths(labels):
        light = mine * depth**flat * np.exp(rng.normal(0, spread_of_levels))
        if rng.random() < condensed:  # dividing or dying: bright, in lumps, and one nucleus still
            light = light * np.clip(1 + lumps[box], 0.1, 3) * rng.uniform(1.5, 4)
        picture[box] += light
    picture = ndimage.gaussian_filter(picture * np.clip(texture, 0.1, 3), rng.uniform(0.5, 2))
    if rng.random() < 0.5:  # what lies above and below
        haze = (smooth_noise(rng, SCENE, rng.uniform(15, 60)) > rng.uniform(0, 1.5)).astype(np.float32)
        picture += rng.uniform(0, 0.35) * ndimage.gaussian_filter(haze, rng.uniform(5, 15))
    if rng.random() < 0.4:  # debris
        y, x = np.mgrid[:SCENE, :SCENE].astype(np.float32)
        for middle in rng.uniform(0, SCENE, (rng.integers(1, 15), 2)):
            away = np.hypot(y - middle[0], x - middle[1])
            picture += rng.uniform(0.1, 1.5) * np.exp(-((away / rng.uniform(0.7, 2)) ** 2))
    if rng.random() < 0.4:  # the light of the cell body
        body = ndimage.gaussian_filter((labels > 0).astype(np.float32), rng.uniform(5, 15))
        picture += rng.uniform(0, 0.3) * body * (1 + 0.3 * smooth_noise(rng, SCENE, rng.uniform(2, 8)))
    picture += rng.uniform(0, 0.1) * smooth_noise(rng, SCENE, rng.uniform(60, 190)) + rng.uniform(0.02, 0.4)
    photons = np.exp(rng.uniform(np.log(8), np.log(2000)))
    picture = rng.poisson(np.clip(picture, 0, None) * photons) / photons
    picture = picture + np.exp(rng.uniform(np.log(0.002), np.log(0.08))) * rng.standard_normal(picture.shape)
    return normalise(picture.astype(np.float32), (1.0, 99.8)).astype(np.float32)


def scene(
    rng: np.random.Generator, kinds: tuple[tuple[Kind, float], ...], transmitted: float, glowing: float = 0
) -> tuple[Grey, Labels]:
    """Return a picture and its objects (0: none), each ``(SCENE, SCENE)``, of one of the `kinds` by their odds.

    `transmitted` is the share of scenes seen in transmitted light, `glowing` that of the others in fluorescence.
    """
    drawers, odds = zip(*kinds, strict=True)
    labels = drawers[rng.choice(len(drawers), p=odds)](rng)
    if rng.random() < transmitted:
        return shine_through(labels, rng), labels
    if glowing and rng.random() < glowing:
        return glow(labels, rng), labels
    return paint(labels, rng), labels
