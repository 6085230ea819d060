"""Painting: backgrounds, things and people, from back to front."""

from dataclasses import dataclass

import cv2
import numpy as np

from rsnlib.demo.body import PARTS, SKINS, figure, random_color, random_person, random_pose, rotation, tinted, tube

SUPERSAMPLING = 2
SUBPIXEL_BITS = 4
PERSON_HEIGHTS = (90, 220)  # pixels, standing
YAW_SPREAD = 65  # degrees, standard deviation from facing the viewer
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)])  # (2, 20)
SHADES = ((1.0, 0.68), (0.86, 0.84), (0.66, 0.95), (0.38, 1.05))  # share of a piece's width, brightness there


def owner_code(number, part):
    """Return the number, in `Scene.owner`, of a part of person `number`; 0 is no one."""
    return 1 + number * len(PARTS) + PARTS.index(part)


class Scene:
    """A picture (height, width, 3) uint8 and the owner of each pixel (height, width) uint16 (`owner_code`), both
    SUPERSAMPLING times the final size. `light`: (2,), the direction in the picture from which light comes."""

    def __init__(self, picture, light):
        self.picture = picture
        self.owner = np.zeros(picture.shape[:2], np.uint16)
        self.light = light

    def fill(self, points, color, owner=0):
        """Paint the convex hull of `points`, (n, 2), for `owner`: 0 is no one."""
        hull = cv2.convexHull((np.asarray(points) * 2**SUBPIXEL_BITS).astype(np.int32))
        cv2.fillConvexPoly(self.picture, hull, color.tolist(), shift=SUBPIXEL_BITS)
        cv2.fillConvexPoly(self.owner, hull, owner, shift=SUBPIXEL_BITS)

    def paint(self, piece, origin, scale, owner=0):
        """Paint a Piece with rounded shading. `origin`: (2,), the pixel of space's origin; `scale`: pixels per unit."""
        centers = origin + scale * piece.centers[:, :2] * (1, -1)
        flat = scale * piece.axes[:, :2] * np.array([[1], [-1]])  # (n, 2, 3)
        spread = np.linalg.cholesky(flat @ flat.transpose(0, 2, 1) + 1e-6 * np.eye(2))
        outlines = (spread @ CIRCLE).transpose(0, 2, 1)  # (n, 20, 2) around each center
        along = np.zeros_like(centers)  # out of the chain at its ends, so that no rim of shading marks a joint
        for end, other in ((0, 1), (-1, -2)) if len(centers) > 1 else ():
            step = centers[end] - centers[other]
            along[end] = step / max(np.linalg.norm(step), 1.0)
        width = np.sqrt(spread[:, 0, 0] * spread[:, 1, 1])[:, None]  # geometric mean of each ellipse's semi-axes
        for share, brightness in SHADES:
            inner = centers + (1 - share) * width * (along + 0.45 * self.light)
            points = inner[:, None] + share * outlines
            for i, color in enumerate(piece.colors * brightness):
                self.fill(points[i : i + 2].reshape(-1, 2), color, owner)


def corners(x, y, width, height):
    """Return the corners (4, 2) of an upright rectangle."""
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])


def noise(rng, shape, cell):
    """Return (height, width, 1), about -1 to 1, in soft spots of `cell` pixels."""
    height, width = shape[:2]
    spots = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
    return cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]


def background(rng, width, height):
    """Return (height, width, 3) uint8: wall and floor in soft gradients, grained, sometimes tiled."""
    wall, floor = random_color(rng, 0.4, 0.35), random_color(rng, 0.4, 0.25)
    down, across = np.meshgrid(*(np.linspace(0, 1, side, dtype=np.float32) for side in (height, width)), indexing="ij")
    picture = np.where(down[..., None] < rng.uniform(0.3, 0.7), wall, floor).astype(np.float32)
    for slope in (down, across):
        picture *= 1 + rng.uniform(-0.3, 0.3) * (slope[..., None] - 0.5)
    for cell in (2, 6, 24, 80):
        picture *= 1 + rng.uniform(0, 0.12) * noise(rng, picture.shape, cell)
    if rng.random() < 0.4:  # tiles or boards
        x, y = rng.integers(8, 45, 2)
        lines = (np.arange(width) % x == 0) | ((np.arange(height)[:, None] % y == 0) & (rng.random() < 0.6))
        picture[lines] *= rng.uniform(0.75, 0.95)
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_box(scene, rng, x, y, size, color):
    depth = np.array([0.2, -0.15]) * size
    front = corners(x, y, size, rng.uniform(0.4, 1.2) * size)
    scene.fill([*front[:2], *(front[1::-1] + depth)], color * 1.1)
    scene.fill([*front[1:3], *(front[2:0:-1] + depth)], color * 0.6)
    scene.fill(front, color * 0.8)


def draw_pole(scene, rng, x, y, size, color):
    bottom = np.array([x, scene.owner.shape[0]])
    radius = rng.uniform(3, 12)
    scene.paint(tube("head", color, np.zeros(3), np.array([0, 1, 0]) * 1e4, [radius, radius]), bottom, 1)


def draw_table(scene, rng, x, y, size, color):
    for leg in (0.05, 0.88):
        scene.fill(corners(x + leg * size, y, 0.07 * size, size), color * 0.7)
    scene.fill(corners(x, y, size, 0.12 * size), color)


def draw_stray_limb(scene, rng, x, y, size, color):
    start, end = rng.uniform(-1, 1, (2, 3))
    likeness = tinted(SKINS, rng) if rng.random() < 0.4 else color
    scene.paint(tube("head", likeness, start, end, np.sort(rng.uniform(0.08, 0.25, 3))), np.array([x, y]), size)


BACKDROP = (draw_box, draw_pole, draw_table, draw_stray_limb)
IN_FRONT = (draw_box, draw_pole, draw_table)


def place_thing(scene, rng, kinds, highest):
    """Draw one of `kinds`, anywhere from the share `highest` of the picture's height downwards."""
    height, width = scene.owner.shape
    x, y = rng.uniform(-0.1, 1) * width, rng.uniform(highest, 0.9) * height
    kinds[rng.integers(len(kinds))](scene, rng, x, y, rng.uniform(0.06, 0.3) * width, random_color(rng, 0.6, 0.2))


def photograph(scene, rng):
    """Return the scene at its final size as a camera sees it, (h, w, 3) uint8: uneven light, a slight blur, grain."""
    height, width = (side // SUPERSAMPLING for side in scene.owner.shape)
    picture = cv2.resize(scene.picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    picture *= rng.uniform(0.8, 1.15) * (1 + rng.uniform(0, 0.15) * noise(rng, picture.shape, 100))
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.8))
    picture += rng.normal(0, rng.uniform(1, 6), picture.shape).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Placed:
    """A figure with its place in a scene: keypoints (17, 3) and pieces in units, origin (2,) and scale in pixels."""

    keypoints: np.ndarray
    pieces: list
    origin: np.ndarray
    scale: float
    seated: bool

    @property
    def points(self):
        """The keypoints (17, 2) in pixels of the scene."""
        return self.origin + self.scale * self.keypoints[:, :2] * (1, -1)

    def paint(self, scene, number):
        """Paint this person as `number`, from 0, of the scene."""
        for piece in self.pieces:
            scene.paint(piece, self.origin, self.scale, owner_code(number, piece.part))

    @classmethod
    def random(cls, rng, width, height, slot):
        """Return someone who stands in the stretch `slot` (first, last) of the width of a scene."""
        pose = random_pose(rng)
        view = rotation(0, rng.uniform(-4, 14)) @ rotation(2, rng.normal(0, 2)) @ rotation(1, rng.normal(0, YAW_SPREAD))
        keypoints, pieces = figure(random_person(rng), pose, view)
        shortest, tallest = (SUPERSAMPLING * pixels for pixels in PERSON_HEIGHTS)
        scale = rng.uniform(shortest, min(tallest, 0.95 * height))
        x, y = scale * keypoints[:, 0], -scale * keypoints[:, 1]
        top, bottom = 0.09 * scale - y.min(), height - 0.06 * scale - y.max()  # the highest and lowest to stand
        down = rng.uniform(0.45, 1.0) + (rng.uniform(0.2, 0.8) if rng.random() < 0.06 else 0)  # some lose their feet
        across = rng.uniform(*slot) * width
        if rng.random() < 0.9:  # the rest may stand across the picture's edge
            margin = 0.05 * scale
            across = np.clip(across, margin - x.min(), max(margin - x.min(), width - margin - x.max()))
        return cls(keypoints, pieces, np.array([across, top + down * (bottom - top)]), scale, pose.seated)


def draw_scene(rng, width, height, people):
    """Return a Scene of `width` and `height` and its people, the farthest first: a list of Placed."""
    wall_and_floor = cv2.resize(background(rng, width // SUPERSAMPLING, height // SUPERSAMPLING), (width, height))
    scene = Scene(wall_and_floor, light=np.array([rng.uniform(-1, 1), rng.uniform(-1, -0.3)]))
    for _ in range(rng.integers(3, 10)):
        place_thing(scene, rng, BACKDROP, highest=0)
    slots = [((i + 0.15) / people, (i + 0.85) / people) for i in range(people)]
    persons = [Placed.random(rng, width, height, slot) for slot in slots]
    persons.sort(key=lambda person: person.points[:, 1].max())
    for number, person in enumerate(persons):
        if person.seated:
            half, drop = 0.13 * person.scale, 0.3 * person.scale
            seat = corners(person.origin[0] - half, person.origin[1] + 0.04 * person.scale, 2 * half, drop)
            scene.fill(seat, random_color(rng, 0.5, 0.2))
        person.paint(scene, number)
    if rng.random() < 0.3:
        place_thing(scene, rng, IN_FRONT, highest=0.65)
    return scene, persons
