"""Drawn people: bodies, poses, looks, and the pieces a figure is painted of."""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from rsnlib.data.skeletons import COCO

PERSON_HEIGHTS = (90, 220)  # pixels, standing

YAW_SPREAD = 65  # degrees, standard deviation from facing the viewer

SIDES = (("left", 1), ("right", -1))  # a person's left is the positive x of their own frame

CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)])  # (2, 20)

SHADES = ((1.0, 0.68), (0.86, 0.84), (0.66, 0.95), (0.38, 1.05))  # share of a piece's width, brightness there

CLOTH = 0.005  # thickness of clothes

MEAN_SHOULDERS = 0.106  # half the distance between the joints

SKINS = ((255, 219, 190), (241, 194, 155), (224, 172, 125), (198, 134, 88), (151, 98, 62), (107, 68, 44), (77, 48, 34))

HAIRS = ((28, 22, 20), (62, 40, 26), (104, 66, 36), (168, 112, 58), (216, 178, 110), (150, 148, 146), (140, 58, 30))

PARTS = (
    "head", "nose", "left_eye", "right_eye", "left_ear", "right_ear", "torso", "pelvis",
    "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm", "left_hand", "right_hand",
    "left_thigh", "right_thigh", "left_shank", "right_shank", "left_foot", "right_foot",
)  # fmt: skip

CARRIERS = {  # the parts that show a keypoint; {} is its side
    "nose": ("nose",),
    "eye": ("{}_eye",),
    "ear": ("{}_ear",),
    "shoulder": ("{}_upper_arm", "torso"),
    "elbow": ("{}_upper_arm", "{}_forearm"),
    "wrist": ("{}_forearm", "{}_hand"),
    "hip": ("{}_thigh", "pelvis", "torso"),
    "knee": ("{}_thigh", "{}_shank"),
    "ankle": ("{}_shank", "{}_foot"),
}

# How much nearer than its middle a layer counts when layers are sorted: clothes over legs, arms and head over clothes.
NEARER = {"pelvis": 0.005, "skirt": 0.02, "shirt": 0.06, "upper_arm": 0.07, "forearm": 0.08, "head": 0.08}

FAR_SIDE = 0.8  # a shoulder or hip is behind the torso where its line runs this steeply away from the viewer


@dataclass(frozen=True)
class Body:
    """Lengths of one person, near the means of Drillis and Contini (1966); `build` multiplies all widths."""

    build: float
    head: float  # multiplies the size of the head
    shoulders: float  # half the distance between the shoulder joints
    hips: float
    upper_arm: float
    forearm: float
    thigh: float
    shank: float

    @classmethod
    def random(cls, rng):
        arm_and_leg = {"upper_arm": 0.172, "forearm": 0.146, "thigh": 0.24, "shank": 0.236}
        means = {"shoulders": MEAN_SHOULDERS, "hips": 0.056, **arm_and_leg}
        lengths = {name: mean * rng.normal(1, 0.03) for name, mean in means.items()}
        return cls(build=rng.uniform(0.88, 1.22), head=rng.uniform(1.0, 1.18), **lengths)


@dataclass(frozen=True)
class Limb:
    """An arm from the chest or a leg from the upright body: `lift` forwards, `spread` sideways, `twist` about its
    own length, and `fold` at the elbow or knee."""

    lift: float = 0
    spread: float = 0
    twist: float = 0
    fold: float = 0


@dataclass(frozen=True)
class Pose:
    """`lean` and `tilt` move the whole body forwards and sideways; `bend` and `turn` the chest against the hips;
    `nod` and `look` the head against the chest. Arms and legs are (left, right)."""

    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    lean: float = 0
    tilt: float = 0
    bend: float = 0
    turn: float = 0
    nod: float = 0
    look: float = 0
    seated: bool = False


@dataclass(frozen=True)
class Look:
    """Colours are (3,) blue, green, red. `sleeves` and `trousers` are lengths along a limb: 1 ends at the elbow or
    knee, 2 at the wrist or ankle. `skirt` is its length along the thigh, 0 for none."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trim: np.ndarray  # the shirt's second colour
    lower: np.ndarray  # trousers or skirt
    shoes: np.ndarray
    pattern: str  # plain, stripes, two-tone or logo
    hairstyle: str  # short, long, bald or cap
    sleeves: float
    trousers: float
    skirt: float

    @classmethod
    def random(cls, rng):
        skirt = rng.uniform(0.5, 0.85) if rng.random() < 0.15 else 0.0
        return cls(
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


def random_color(rng, saturation, darkest):
    """(3,) blue, green, red in 0 to 255, of any hue."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, saturation), rng.uniform(darkest, 1))
    return np.array([blue, green, red]) * 255


def tinted(colors, rng):
    """One of `colors` (red, green, blue), slightly changed, as (3,) blue, green, red."""
    return np.clip(np.array(colors[rng.integers(len(colors))][::-1]) * rng.normal(1, 0.06, 3), 0, 255)


def random_pose(rng):
    """A pose of a random kind, with left and right exchanged every other time and a head that looks around."""
    u = rng.uniform
    make = POSES[rng.choice(len(POSES), p=POSE_SHARES)]
    pose = {"turn": u(-12, 12), "tilt": u(-4, 4), "nod": u(-12, 18), "look": np.clip(rng.normal(0, 22), -60, 60)}
    pose |= make(u)
    if rng.random() < 0.5:
        pose |= {"arms": pose["arms"][::-1], "legs": pose["legs"][::-1], "turn": -pose["turn"], "tilt": -pose["tilt"]}
    return Pose(**pose)


def free_arm(u):
    """An arm that hangs, rests on the hip, is held forwards or waves."""
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
    """A chain of n ellipsoids that belongs to one of PARTS: centers (n, 3), axes (n, 3, 3) with a semi-axis a
    column, and the colour of each link of the chain, (n - 1, 3), or of the single ellipsoid, (1, 3)."""

    part: str
    colors: np.ndarray
    centers: np.ndarray
    axes: np.ndarray

    @property
    def depth(self):
        return self.centers[:, 2].mean()


def rotation(axis, degrees):
    """(3, 3), right-handed, about the frame's own left (0), up (1) or forward (2)."""
    vector = np.zeros(3)
    vector[axis] = np.radians(degrees)
    return cv2.Rodrigues(vector)[0]


def ellipsoids(part, color, *blobs):
    """A Piece of one colour from (center, frame, (three radii)) each."""
    centers, frames, radii = zip(*blobs)
    axes = np.array(frames) * np.array(radii)[:, None, :]
    return Piece(part, np.tile(color, (max(len(blobs) - 1, 1), 1)), np.array(centers), axes)


def tube(part, color, start, end, radii):
    """A Piece of spheres with `radii`, evenly from `start` to `end`."""
    centers = np.linspace(start, end, len(radii))
    return ellipsoids(part, color, *((center, np.eye(3), (radius,) * 3) for center, radius in zip(centers, radii)))


def clothed(part, skin, cloth, cover, start, end, radii):
    """A stretch of limb, and over its first `cover` (0 to 1) a stretch of sleeve or trouser leg."""
    pieces = [tube(part, skin, start, end, radii)]
    if cover > 0.05:
        along = np.linspace(0, cover, 5)
        widths = np.interp(along, np.linspace(0, 1, len(radii)), radii) + CLOTH
        pieces.append(tube(part, cloth, start, start + cover * (end - start), widths))
    return pieces


def striped(piece, pattern, trim, bands=12):
    """`piece` in `bands` thin links, coloured by `pattern` with `trim` as the second colour."""
    old, new = np.linspace(0, 1, len(piece.centers)), np.linspace(0, 1, bands + 1)

    def resampled(values):
        columns = [np.interp(new, old, column) for column in values.reshape(len(old), -1).T]
        return np.stack(columns, axis=1).reshape(-1, *values.shape[1:])

    trimmed = {"stripes": np.arange(bands) % 4 < 2, "two-tone": np.arange(bands) >= bands * 0.6}[pattern]
    colors = np.where(trimmed[:, None], trim, piece.colors[0])
    thin = resampled(piece.axes) * (1, 0.1, 1)  # or each band would reach far into the next
    return Piece(piece.part, colors, resampled(piece.centers), thin)


def figure(body, pose, look, view):
    """The person in space, seen in the frame `view` with the middle of the hips at the origin.

    Gives the keypoints, (17, 3), and the pieces in the order to paint them, farthest first.
    """
    upright = view @ rotation(2, pose.tilt) @ rotation(0, pose.lean)
    pelvis = upright @ rotation(0, 0.4 * pose.bend)
    chest = pelvis @ rotation(1, pose.turn) @ rotation(0, 0.6 * pose.bend)
    waist = pelvis @ (0, 0.11, 0)
    head = chest @ rotation(1, pose.look) @ rotation(0, pose.nod)
    head_center = waist + chest @ (0, 0.228, 0.006) + head @ (0, 0.058 * body.head, 0.012)

    layers = torso_layers(body, look, pelvis, chest, waist)
    joints, head_pieces = head_and_neck(look, head, head_center, waist + chest @ (0, 0.196, -0.008), body.head)
    layers.append((head_center[2] + NEARER["head"], head_pieces))
    thigh_middles = []
    for (side, sign), arm, leg in zip(SIDES, pose.arms, pose.legs):
        shoulder = waist + chest @ (sign * body.shoulders, 0.158, -0.003)
        frame = chest @ rotation(2, sign * arm.spread) @ rotation(0, -arm.lift) @ rotation(1, sign * arm.twist)
        arm_joints, arm_layers = one_arm(side, body, look, shoulder, frame, arm.fold)
        hip = pelvis @ (sign * body.hips, 0, 0)
        frame = upright @ rotation(2, sign * leg.spread) @ rotation(0, -leg.lift) @ rotation(1, sign * leg.twist)
        leg_joints, leg_layers = one_leg(side, body, look, hip, frame, leg.fold)
        joints |= arm_joints | leg_joints
        layers += arm_layers + leg_layers
        thigh_middles.append(hip + look.skirt * (leg_joints[f"{side}_knee"] - hip))
    if look.skirt:
        layers.append(skirt_layer(body, look, pelvis, *thigh_middles))
    layers.sort(key=lambda layer: layer[0])
    return np.array([joints[name] for name in COCO.keypoints]), [piece for _, pieces in layers for piece in pieces]


def torso_layers(body, look, pelvis, chest, waist):
    """Trousers' top and shirt, as (depth, pieces)."""
    b = body.build
    top = body.shoulders / MEAN_SHOULDERS
    hips = ellipsoids(
        "pelvis", look.lower,
        (pelvis @ (0, -0.005, -0.005), pelvis, (0.076 * b, 0.045, 0.058 * b)),
        (pelvis @ (0, 0.06, 0), pelvis, (0.07 * b, 0.03, 0.05 * b)),
    )  # fmt: skip
    shirt = ellipsoids(
        "torso", look.shirt,
        (pelvis @ (0, 0.035, 0), pelvis, (0.08 * b, 0.02, 0.06 * b)),
        (waist, pelvis, (0.074 * b, 0.03, 0.057 * b)),
        (waist + chest @ (0, 0.09, 0.004), chest, (0.09 * b, 0.04, 0.066 * b)),
        (waist + chest @ (0, 0.15, 0), chest, (0.1 * b * top, 0.032, 0.05 * b)),
        (waist + chest @ (0, 0.208, -0.008), chest, (0.04, 0.012, 0.034)),
    )  # fmt: skip
    pieces = [striped(shirt, look.pattern, look.trim) if look.pattern in ("stripes", "two-tone") else shirt]
    if look.pattern == "logo" and chest[2, 2] > 0.3:
        logo = waist + chest @ (0, 0.09, 0.06 * b)
        pieces.append(ellipsoids("torso", look.trim, (logo, chest, (0.035, 0.03, 0.005))))
    return [(hips.depth + NEARER["pelvis"], [hips]), (shirt.depth + NEARER["shirt"], pieces)]


def skirt_layer(body, look, pelvis, left, right):
    """A skirt from the hips to a hem around the points `left` and `right` of the thighs, as (depth, pieces)."""
    radius = 0.075 * body.build
    across = (left - right) / 2
    across = across * (1 + radius / max(np.linalg.norm(across), 0.02))
    hem = np.column_stack([across, pelvis[:, 1] * 0.01, pelvis[:, 2] * radius])
    top = (pelvis @ (0, 0.05, 0), pelvis, (0.074 * body.build, 0.02, 0.055 * body.build))
    middle = (pelvis @ (0, -0.01, 0), pelvis, (body.hips + 0.064 * body.build, 0.03, 0.068 * body.build))
    skirt = ellipsoids("pelvis", look.lower, top, middle, ((left + right) / 2, hem, (1, 1, 1)))
    return max(left[2], right[2]) + NEARER["skirt"], [skirt]


def one_arm(side, body, look, shoulder, frame, fold):
    """An arm from its upper arm's frame: named keypoints and (depth, pieces)."""
    b = body.build
    fore = frame @ rotation(0, -fold)
    elbow = shoulder - frame[:, 1] * body.upper_arm
    wrist = elbow - fore[:, 1] * body.forearm
    upper_radii, fore_radii = np.array([0.033, 0.032, 0.029, 0.025]) * b, np.array([0.025, 0.026, 0.021, 0.016]) * b
    cover = np.clip([look.sleeves, look.sleeves - 1], 0, 1)
    upper_pieces = clothed(f"{side}_upper_arm", look.skin, look.shirt, cover[0], shoulder, elbow, upper_radii)
    fore_pieces = clothed(f"{side}_forearm", look.skin, look.shirt, cover[1], elbow, wrist, fore_radii)
    hand = ellipsoids(
        f"{side}_hand", look.skin,
        (wrist, fore, (0.014, 0.014, 0.016)),
        (wrist + fore @ (0, -0.04, 0.004), fore, (0.012, 0.024, 0.024)),
        (wrist + fore @ (0, -0.072, 0.01), fore, (0.009, 0.018, 0.017)),
    )  # fmt: skip
    layers = [
        ((shoulder[2] + elbow[2]) / 2 + NEARER["upper_arm"], upper_pieces),
        ((elbow[2] + wrist[2]) / 2 + NEARER["forearm"], [hand, *fore_pieces]),
    ]
    return {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist}, layers


def one_leg(side, body, look, hip, frame, fold):
    """A leg from its thigh's frame: named keypoints and (depth, pieces)."""
    b = body.build
    lower = frame @ rotation(0, fold)
    knee = hip - frame[:, 1] * body.thigh
    ankle = knee - lower[:, 1] * body.shank
    thigh_radii = np.array([0.058, 0.057, 0.05, 0.04]) * b
    shank_radii = np.array([0.04, 0.043, 0.034, 0.024]) * b
    cover = np.clip([look.trousers, look.trousers - 1], 0, 1)
    thigh_pieces = clothed(f"{side}_thigh", look.skin, look.lower, cover[0], hip, knee, thigh_radii)
    shank_pieces = clothed(f"{side}_shank", look.skin, look.lower, cover[1], knee, ankle, shank_radii)
    foot = ellipsoids(
        f"{side}_foot", look.shoes,
        (ankle + lower @ (0, -0.012, -0.01), lower, (0.024, 0.028, 0.028)),
        (ankle + lower @ (0, -0.026, 0.05), lower, (0.026, 0.016, 0.03)),
        (ankle + lower @ (0, -0.03, 0.085), lower, (0.022, 0.011, 0.02)),
    )  # fmt: skip
    layers = [
        ((hip[2] + knee[2]) / 2, thigh_pieces),
        ((knee[2] + ankle[2]) / 2, shank_pieces),
        (ankle[2] + lower[2, 2] * 0.03, [foot]),
    ]
    return {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}, layers


def head_and_neck(look, head, center, neck_base, size):
    """The face's named keypoints and the head's pieces, farthest first, for a head's frame and center."""
    on_face = 0.01 if head[2, 2] > -0.2 else -1  # from behind, the face goes under the skull
    long = look.hairstyle == "long"
    nose = (0, -0.014, 0.062)
    eyes = {side: (sign * 0.019, 0.003, 0.048) for side, sign in SIDES}
    ears = {side: (sign * 0.053, -0.008, -0.006) for side, sign in SIDES}

    # part, colour, how much nearer than its middle it counts, (position, radii) of each ellipsoid in the head's frame
    shapes = [
        ("head", look.skin if look.hairstyle == "bald" else look.hair, 0, ((0, 0.012, -0.008), (0.047, 0.055, 0.06))),
        ("head", look.skin, 0.002, ((0, -0.035, 0.016), (0.034, 0.028, 0.036))),  # jaw
        ("head", look.skin, 0.005, ((0, -0.008, 0.02), (0.044, 0.05, 0.038))),  # face
        ("head", look.skin * (0.44, 0.44, 0.66), on_face, ((0, -0.041, 0.05), (0.015, 0.004, 0.006))),  # mouth
        ("nose", look.skin * 0.92, on_face, (nose, (0.009, 0.014, 0.013))),
    ]
    for side, sign in SIDES:
        shapes += [
            ("head", look.hair * 0.8, on_face, ((sign * 0.019, 0.019, 0.047), (0.012, 0.0035, 0.005))),  # eyebrow
            (f"{side}_eye", np.full(3, 30.0), on_face, (eyes[side], (0.0075, 0.005, 0.006))),
            (f"{side}_ear", look.skin * 0.9, -0.05 if long else 0, (ears[side], (0.009, 0.018, 0.012))),
        ]
    if long:
        falling = ((0, 0.01, -0.03), (0.05, 0.05, 0.04)), ((0, -0.06, -0.042), (0.054, 0.04, 0.03))
        tips = (0, -0.12, -0.04), (0.044, 0.03, 0.022)
        shapes.append(("head", look.hair, -1 if head[2, 2] > 0.25 else 0.006, *falling, tips))
    if look.hairstyle == "cap":
        shapes += [
            ("head", look.trim, 0.02, ((0, 0.044, -0.006), (0.05, 0.032, 0.063))),
            ("head", look.trim, 2 * on_face, ((0, 0.028, 0.062), (0.036, 0.006, 0.034))),  # its brim
        ]

    def at(position):
        return center + size * (head @ position)

    neck = tube("head", look.skin, neck_base, at((0, -0.02, -0.008)), (0.036, 0.03, 0.03))
    pieces = [(neck.depth - center[2] - 0.02, neck)]
    for part, color, nearer, *blobs in shapes:
        piece = ellipsoids(part, color, *((at(position), head, np.array(radii) * size) for position, radii in blobs))
        pieces.append((piece.depth - center[2] + nearer, piece))
    joints = {"nose": at(nose)}
    joints |= {f"{side}_eye": at(eye) for side, eye in eyes.items()}
    joints |= {f"{side}_ear": at(ear) for side, ear in ears.items()}
    return joints, [piece for _, piece in sorted(pieces, key=lambda item: item[0])]
