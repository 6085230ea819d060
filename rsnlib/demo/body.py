"""Anatomy of drawn people: bodies, poses, looks, and the pieces of which a figure is painted.

The unit of length is a person's height; a frame (3, 3) has its own left, up and forward as columns.
"""

import colorsys
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np

from rsnlib.data.skeletons import COCO

SIDES = (("left", 1), ("right", -1))  # a person's left is the positive x of their own frame
CLOTH = 0.005  # thickness of clothes
MEAN_SHOULDERS = 0.106  # half the distance between the joints
SKINS = ((255, 219, 190), (241, 194, 155), (224, 172, 125), (198, 134, 88), (151, 98, 62), (107, 68, 44), (77, 48, 34))
HAIRS = ((28, 22, 20), (62, 40, 26), (104, 66, 36), (168, 112, 58), (216, 178, 110), (150, 148, 146), (140, 58, 30))
PARTS = (
    "head", "nose", "left_eye", "right_eye", "left_ear", "right_ear", "torso", "pelvis",
    "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm", "left_hand", "right_hand",
    "left_thigh", "right_thigh", "left_shank", "right_shank", "left_foot", "right_foot",
)  # fmt: skip

# Added to a layer's depth before layers are sorted: clothes over legs, arms and head over clothes
NEARER = {"pelvis": 0.005, "skirt": 0.02, "shirt": 0.06, "upper_arm": 0.07, "forearm": 0.08, "head": 0.08}


def random_person(rng):
    """Return one person's lengths, near the means of Drillis and Contini (1966), and look.

    `shoulders` and `hips` are half the distance between the joints; `build` multiplies all widths, `head` the size of
    the head. Colours are (3,) blue, green, red: `trim` is the shirt's second, `lower` that of trousers or skirt.
    `sleeves` and `trousers` are lengths along a limb: 1 ends at the elbow or knee, 2 at the wrist or ankle; `skirt` is
    its length along the thigh, 0 for none.
    """
    arm_and_leg = {"upper_arm": 0.172, "forearm": 0.146, "thigh": 0.24, "shank": 0.236}
    means = {"shoulders": MEAN_SHOULDERS, "hips": 0.056, **arm_and_leg}
    lengths = {name: mean * rng.normal(1, 0.03) for name, mean in means.items()}
    lengths |= {"build": rng.uniform(0.88, 1.22), "head": rng.uniform(1.0, 1.18)}
    skirt = rng.uniform(0.5, 0.85) if rng.random() < 0.15 else 0.0
    return SimpleNamespace(
        **lengths,
        skin=tinted(SKINS, rng),
        hair=tinted(HAIRS, rng),
        shirt=random_color(rng, 0.85, 0.3),
        trim=random_color(rng, 0.85, 0.3),
        lower=random_color(rng, 0.6, 0.15),
        shoes=random_color(rng, 0.5, 0.1),
        pattern=rng.choice(("plain", "stripes", "two-tone", "logo"), p=(0.4, 0.25, 0.15, 0.2)),
        hairstyle=rng.choice(("short", "long", "bald", "cap"), p=(0.52, 0.22, 0.11, 0.15)),
        sleeves=rng.choice((0.0, rng.uniform(0.4, 0.75), 1.95), p=(0.1, 0.45, 0.45)),
        trousers=0.0 if skirt else rng.choice((rng.uniform(0.55, 0.95), 1.95), p=(0.3, 0.7)),
        skirt=skirt,
    )


@dataclass(frozen=True)
class Limb:
    """An arm from the chest or a leg from the upright body: `lift` forwards, `spread` sideways, `twist` about its
    own length, and `fold` at the elbow or knee."""

    lift: float = 0
    spread: float = 0
    twist: float = 0
    fold: float = 0


STILL = dict.fromkeys(("lean", "tilt", "bend", "turn", "nod", "look", "seated"), 0)


def random_color(rng, saturation, darkest):
    """Return a colour of any hue: (3,) blue, green, red, 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, saturation), rng.uniform(darkest, 1))
    return np.array([blue, green, red]) * 255


def tinted(colors, rng):
    """Return one of `colors` (red, green, blue), slightly changed, as (3,) blue, green, red."""
    return np.clip(np.array(colors[rng.integers(len(colors))][::-1]) * rng.normal(1, 0.06, 3), 0, 255)


def random_pose(rng):
    """Return a pose of a random kind, left and right exchanged half the time, with a head that looks around.

    `lean` and `tilt` move the whole body forwards and sideways; `bend` and `turn` the chest against the hips; `nod` and
    `look` the head against the chest. `arms` and `legs` are (left, right).
    """
    u = rng.uniform
    make = POSES[rng.choice(len(POSES), p=POSE_SHARES)]
    pose = {"turn": u(-12, 12), "tilt": u(-4, 4), "nod": u(-12, 18), "look": np.clip(rng.normal(0, 22), -60, 60)}
    pose |= make(u)
    if rng.random() < 0.5:
        pose |= {"arms": pose["arms"][::-1], "legs": pose["legs"][::-1], "turn": -pose["turn"], "tilt": -pose["tilt"]}
    return SimpleNamespace(**STILL | pose)


def free_arm(u):
    """Return an arm that hangs, rests on the hip, is held forwards or waves."""
    kind = u(0, 1)
    if kind < 0.45:
        return Limb(u(-15, 20), u(4, 16), u(-30, 30), u(5, 35))
    if kind < 0.6:  # hand on the hip
        return Limb(u(-30, -10), u(35, 50), u(-85, -65), u(85, 105))
    if kind < 0.85:
        return Limb(u(15, 60), u(0, 30), u(-60, 20), u(40, 120))
    return Limb(u(-10, 30), u(70, 150), u(-20, 100), u(10, 100))


def standing(u):
    legs = Limb(u(-4, 6), u(2, 12), 0, u(0, 8)), Limb(u(-4, 12), u(2, 12), 0, u(0, 20))
    return {"arms": (free_arm(u), free_arm(u)), "legs": legs, "bend": u(-6, 10)}


def walking(u):
    stride = u(14, 32)
    legs = Limb(stride, u(0, 4), 0, u(2, 16)), Limb(-0.7 * stride, u(0, 4), 0, u(8, 45))
    arms = Limb(-u(0.6, 1.2) * stride, u(4, 10), 0, u(5, 30)), Limb(u(0.6, 1.2) * stride, u(4, 10), 0, u(10, 45))
    return {"arms": arms, "legs": legs, "lean": u(-2, 8)}


def running(u):
    legs = Limb(u(40, 75), u(0, 6), 0, u(50, 105)), Limb(u(-40, -15), u(0, 6), 0, u(15, 95))
    arms = Limb(u(-60, -25), u(5, 18), u(-20, 0), u(70, 110)), Limb(u(15, 55), u(5, 15), u(-30, 0), u(70, 110))
    return {"arms": arms, "legs": legs, "lean": u(6, 22), "bend": u(0, 12)}


def arms_up(u):
    arms = tuple(Limb(u(-10, 25), u(95, 170), u(0, 90), u(5, 75)) for _ in SIDES)
    legs = tuple(Limb(u(-5, 10), u(2, 22), 0, u(0, 20)) for _ in SIDES)
    return {"arms": arms, "legs": legs, "bend": u(-10, 8)}


def sitting(u):
    legs = tuple(Limb(u(72, 95), u(2, 22), 0, u(65, 105)) for _ in SIDES)
    arms = (Limb(u(10, 40), u(2, 15), u(-40, 0), u(30, 80)), free_arm(u))
    return {"arms": arms, "legs": legs, "bend": u(-8, 25), "seated": True}


def bending(u):
    bend = u(35, 85)
    arms = tuple(Limb(bend * u(0.7, 1.3), u(2, 20), 0, u(5, 50)) for _ in SIDES)
    legs = tuple(Limb(u(-8, 25), u(2, 14), 0, u(5, 45)) for _ in SIDES)
    return {"arms": arms, "legs": legs, "bend": bend, "nod": u(-35, 0)}


def leaning(u):
    legs = Limb(u(0, 40), u(5, 30), 0, u(10, 60)), Limb(u(-15, 5), u(0, 12), 0, u(0, 10))
    return {"arms": (free_arm(u), free_arm(u)), "legs": legs, "lean": u(-8, 10), "tilt": u(4, 11), "bend": u(-5, 20)}


def crouching(u):
    legs = tuple(Limb(u(65, 110), u(5, 25), 0, u(95, 130)) for _ in SIDES)
    arms = tuple(Limb(u(20, 80), u(0, 20), u(-40, 0), u(10, 90)) for _ in SIDES)
    return {"arms": arms, "legs": legs, "bend": u(15, 45)}


POSES = (standing, walking, running, arms_up, sitting, bending, leaning, crouching)
POSE_SHARES = (0.24, 0.22, 0.12, 0.12, 0.1, 0.07, 0.08, 0.05)


@dataclass(frozen=True)
class Piece:
    """A chain of n ellipsoids that belongs to one of PARTS: centers (n, 3), axes (n, 3, 3) with one semi-axis per
    column, and the colour of each link of the chain, (n - 1, 3), or of the single ellipsoid, (1, 3)."""

    part: str
    colors: np.ndarray
    centers: np.ndarray
    axes: np.ndarray

    @property
    def depth(self):
        return self.centers[:, 2].mean()


def rotation(axis, degrees):
    """Return the rotation (3, 3), right-handed, about a frame's own left (0), up (1) or forward (2)."""
    vector = np.zeros(3)
    vector[axis] = np.radians(degrees)
    return cv2.Rodrigues(vector)[0]


def ellipsoids(part, color, *blobs):
    """Return a Piece of one colour from blobs, (center, frame, (three radii)) each."""
    centers, frames, radii = zip(*blobs)
    axes = np.array(frames) * np.array(radii)[:, None, :]
    return Piece(part, np.tile(color, (max(len(blobs) - 1, 1), 1)), np.array(centers), axes)


def tube(part, color, start, end, radii):
    """Return a Piece of spheres with `radii`, evenly from `start` to `end`."""
    centers = np.linspace(start, end, len(radii))
    return ellipsoids(part, color, *((center, np.eye(3), (radius,) * 3) for center, radius in zip(centers, radii)))


def clothed(part, skin, cloth, cover, start, end, radii):
    """Return a stretch of limb and, over its first `cover` (0 to 1), a stretch of sleeve or trouser leg."""
    pieces = [tube(part, skin, start, end, radii)]
    if cover > 0.05:
        along = np.linspace(0, cover, 5)
        widths = np.interp(along, np.linspace(0, 1, len(radii)), radii) + CLOTH
        pieces.append(tube(part, cloth, start, start + cover * (end - start), widths))
    return pieces


def striped(piece, pattern, trim, bands=12):
    """Return `piece` in `bands` thin links, coloured by `pattern` with `trim` as the second colour."""
    old, new = np.linspace(0, 1, len(piece.centers)), np.linspace(0, 1, bands + 1)

    def resampled(values):
        columns = [np.interp(new, old, column) for column in values.reshape(len(old), -1).T]
        return np.stack(columns, axis=1).reshape(-1, *values.shape[1:])

    trimmed = {"stripes": np.arange(bands) % 4 < 2, "two-tone": np.arange(bands) >= bands * 0.6}[pattern]
    colors = np.where(trimmed[:, None], trim, piece.colors[0])
    thin = resampled(piece.axes) * (1, 0.1, 1)  # or each band would reach far into the next
    return Piece(piece.part, colors, resampled(piece.centers), thin)


def figure(who, pose, view):
    """Return the person in space, seen in the frame `view`, with the middle of the hips at the origin: keypoints
    (17, 3), and pieces in the order to paint them, farthest first."""
    upright = view @ rotation(2, pose.tilt) @ rotation(0, pose.lean)
    pelvis = upright @ rotation(0, 0.4 * pose.bend)
    chest = pelvis @ rotation(1, pose.turn) @ rotation(0, 0.6 * pose.bend)
    waist = pelvis @ (0, 0.11, 0)
    head = chest @ rotation(1, pose.look) @ rotation(0, pose.nod)
    head_center = waist + chest @ (0, 0.228, 0.006) + head @ (0, 0.058 * who.head, 0.012)

    layers = torso_layers(who, pelvis, chest, waist)
    joints, head_pieces = head_and_neck(who, head, head_center, waist + chest @ (0, 0.196, -0.008))
    layers.append((head_center[2] + NEARER["head"], head_pieces))
    for (side, sign), arm, leg in zip(SIDES, pose.arms, pose.legs):
        shoulder = waist + chest @ (sign * who.shoulders, 0.158, -0.003)
        hip = pelvis @ (sign * who.hips, 0, 0)
        for kind, root, trunk, angles in ((ARM, shoulder, chest, arm), (LEG, hip, upright, leg)):
            points, pieces = limb(kind, side, sign, who, root, trunk, angles)
            joints |= points
            layers += pieces
    if who.skirt:
        legs = ((joints[f"{side}_hip"], joints[f"{side}_knee"]) for side, _ in SIDES)
        layers.append(skirt_layer(who, pelvis, *(hip + who.skirt * (knee - hip) for hip, knee in legs)))
    layers.sort(key=lambda layer: layer[0])
    return np.array([joints[name] for name in COCO.keypoints]), [piece for _, pieces in layers for piece in pieces]


def torso_layers(who, pelvis, chest, waist):
    """Return the trousers' top and the shirt, as (depth, pieces)."""
    b = who.build
    top = who.shoulders / MEAN_SHOULDERS
    hips = ellipsoids(
        "pelvis", who.lower,
        (pelvis @ (0, -0.005, -0.005), pelvis, (0.076 * b, 0.045, 0.058 * b)),
        (pelvis @ (0, 0.06, 0), pelvis, (0.07 * b, 0.03, 0.05 * b)),
    )  # fmt: skip
    shirt = ellipsoids(
        "torso", who.shirt,
        (pelvis @ (0, 0.035, 0), pelvis, (0.08 * b, 0.02, 0.06 * b)),
        (waist, pelvis, (0.074 * b, 0.03, 0.057 * b)),
        (waist + chest @ (0, 0.09, 0.004), chest, (0.09 * b, 0.04, 0.066 * b)),
        (waist + chest @ (0, 0.15, 0), chest, (0.1 * b * top, 0.032, 0.05 * b)),
        (waist + chest @ (0, 0.208, -0.008), chest, (0.04, 0.012, 0.034)),
    )  # fmt: skip
    pieces = [striped(shirt, who.pattern, who.trim) if who.pattern in ("stripes", "two-tone") else shirt]
    if who.pattern == "logo" and chest[2, 2] > 0.3:
        logo = waist + chest @ (0, 0.09, 0.06 * b)
        pieces.append(ellipsoids("torso", who.trim, (logo, chest, (0.035, 0.03, 0.005))))
    return [(hips.depth + NEARER["pelvis"], [hips]), (shirt.depth + NEARER["shirt"], pieces)]


def skirt_layer(who, pelvis, left, right):
    """Return a skirt from the hips to a hem around the points `left` and `right` of the thighs: (depth, pieces)."""
    radius = 0.075 * who.build
    across = (left - right) / 2
    across = across * (1 + radius / max(np.linalg.norm(across), 0.02))
    hem = np.column_stack([across, pelvis[:, 1] * 0.01, pelvis[:, 2] * radius])
    top = (pelvis @ (0, 0.05, 0), pelvis, (0.074 * who.build, 0.02, 0.055 * who.build))
    middle = (pelvis @ (0, -0.01, 0), pelvis, (who.hips + 0.064 * who.build, 0.03, 0.068 * who.build))
    skirt = ellipsoids("pelvis", who.lower, top, middle, ((left + right) / 2, hem, (1, 1, 1)))
    return max(left[2], right[2]) + NEARER["skirt"], [skirt]


ARM = {
    "joints": ("shoulder", "elbow", "wrist"),
    "parts": ("upper_arm", "forearm"),
    "radii": ((0.033, 0.032, 0.029, 0.025), (0.025, 0.026, 0.021, 0.016)),
    "fold": -1,
    "clothes": ("sleeves", "shirt"),
    "end": ("hand", "skin"),
    "places": ((0, 0, 0), (0, -0.04, 0.004), (0, -0.072, 0.01)),
    "sizes": ((0.014, 0.014, 0.016), (0.012, 0.024, 0.024), (0.009, 0.018, 0.017)),
}
LEG = {
    "joints": ("hip", "knee", "ankle"),
    "parts": ("thigh", "shank"),
    "radii": ((0.058, 0.057, 0.05, 0.04), (0.04, 0.043, 0.034, 0.024)),
    "fold": 1,
    "clothes": ("trousers", "lower"),
    "end": ("foot", "shoes"),
    "places": ((0, -0.012, -0.01), (0, -0.026, 0.05), (0, -0.03, 0.085)),
    "sizes": ((0.024, 0.028, 0.028), (0.026, 0.016, 0.03), (0.022, 0.011, 0.02)),
}


def limb(kind, side, sign, who, root, trunk, angles):
    """Return the named keypoints and the (depth, pieces) of an arm or leg, ARM or LEG.

    side, sign: of SIDES; root: (3,), where the limb begins; trunk: the frame of a hanging limb; angles: Limb
    """
    upper = trunk @ rotation(2, sign * angles.spread) @ rotation(0, -angles.lift) @ rotation(1, sign * angles.twist)
    lower = upper @ rotation(0, kind["fold"] * angles.fold)
    length, cloth = (getattr(who, name) for name in kind["clothes"])
    points, layers = [root], []
    for number, (frame, part, radii) in enumerate(zip((upper, lower), kind["parts"], kind["radii"])):
        start, stop = points[-1], points[-1] - frame[:, 1] * getattr(who, part)
        cover, radii = np.clip(length - number, 0, 1), np.array(radii) * who.build
        pieces = clothed(f"{side}_{part}", who.skin, cloth, cover, start, stop, radii)
        layers.append(((start[2] + stop[2]) / 2 + NEARER.get(part, 0), pieces))
        points.append(stop)
    end, color = kind["end"]
    blobs = ((stop + lower @ place, lower, size) for place, size in zip(kind["places"], kind["sizes"]))
    depth = layers[-1][0] if end == "hand" else stop[2] + lower[2, 2] * 0.03
    layers.insert(1, (depth, [ellipsoids(f"{side}_{end}", getattr(who, color), *blobs)]))  # a hand under its sleeve
    return {f"{side}_{joint}": point for joint, point in zip(kind["joints"], points)}, layers


def head_and_neck(who, head, center, neck_base):
    """Return the face's named keypoints and the head's pieces, farthest first, for a head's frame and center."""
    on_face = 0.01 if head[2, 2] > -0.2 else -1  # from behind, the face goes under the skull
    long = who.hairstyle == "long"
    nose = (0, -0.014, 0.062)
    eyes = {f"{side}_eye": (sign * 0.019, 0.003, 0.048) for side, sign in SIDES}
    ears = {f"{side}_ear": (sign * 0.053, -0.008, -0.006) for side, sign in SIDES}

    # part, colour, how much nearer than its middle it counts, (position, radii) of each ellipsoid in the head's frame
    shapes = [
        ("head", who.skin if who.hairstyle == "bald" else who.hair, 0, ((0, 0.012, -0.008), (0.047, 0.055, 0.06))),
        ("head", who.skin, 0.002, ((0, -0.035, 0.016), (0.034, 0.028, 0.036))),  # jaw
        ("head", who.skin, 0.005, ((0, -0.008, 0.02), (0.044, 0.05, 0.038))),  # face
        ("head", who.skin * (0.44, 0.44, 0.66), on_face, ((0, -0.041, 0.05), (0.015, 0.004, 0.006))),  # mouth
        ("nose", who.skin * 0.92, on_face, (nose, (0.009, 0.014, 0.013))),
    ]
    for side, sign in SIDES:
        shapes += [
            ("head", who.hair * 0.8, on_face, ((sign * 0.019, 0.019, 0.047), (0.012, 0.0035, 0.005))),  # eyebrow
            (f"{side}_eye", np.full(3, 30.0), on_face, (eyes[f"{side}_eye"], (0.0075, 0.005, 0.006))),
            (f"{side}_ear", who.skin * 0.9, -0.05 if long else 0, (ears[f"{side}_ear"], (0.009, 0.018, 0.012))),
        ]
    if long:
        falling = ((0, 0.01, -0.03), (0.05, 0.05, 0.04)), ((0, -0.06, -0.042), (0.054, 0.04, 0.03))
        tips = (0, -0.12, -0.04), (0.044, 0.03, 0.022)
        shapes.append(("head", who.hair, -1 if head[2, 2] > 0.25 else 0.006, *falling, tips))
    if who.hairstyle == "cap":
        shapes += [
            ("head", who.trim, 0.02, ((0, 0.044, -0.006), (0.05, 0.032, 0.063))),
            ("head", who.trim, 2 * on_face, ((0, 0.028, 0.062), (0.036, 0.006, 0.034))),  # its brim
        ]

    def at(position):
        return center + who.head * (head @ position)

    neck = tube("head", who.skin, neck_base, at((0, -0.02, -0.008)), (0.036, 0.03, 0.03))
    pieces = [(neck.depth - center[2] - 0.02, neck)]
    for part, color, nearer, *blobs in shapes:
        piece = ellipsoids(
            part, color, *((at(position), head, np.array(radii) * who.head) for position, radii in blobs)
        )
        pieces.append((piece.depth - center[2] + nearer, piece))
    places = {"nose": nose} | eyes | ears
    return {name: at(place) for name, place in places.items()}, [
        piece for _, piece in sorted(pieces, key=lambda item: item[0])
    ]
