"""Augmentation: named policies, or steps in order with their probabilities.

A policy is written as `NAME[:AMOUNT][:PROBABILITY]`, steps separated by commas, applied in that
order: `flip:0.5,rotate:12:0.5,blur:0.6`. Steps without an amount take a probability only; without
a probability a step is always applied. Neighbouring `rotate`, `shift`, `shear` and `zoom` of one
probability are one affine map, so that the picture is resampled once.

What an image becomes depends on (seed, fold, view, image) alone: not on the batch it is in, not on
what was drawn before. So a killed training goes on with the same pictures, four batches of 8 see
what one of 32 sees, and a view can be replayed from storage. Steps are torchvision's v2
transforms; torchvision has no grid distortion, `grid` is its elastic transform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.data.sided import sided_note
from headstart.errors import UsageError
from headstart.records import Integers
from headstart.registry import Registry

MEAN_COLOUR = [124, 116, 104]  # of ImageNet; what erased boxes are filled with
Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """One kind of change.

    Attributes:
        name: what users type.
        description: one line, the unit of its amount named.
        amount: the default; None where it takes none.
        build: the transform of an amount; (3, H, W) uint8 in and out.
        affine: what it adds to one affine map, for steps that can be joined.
    """

    name: str
    description: str
    amount: float | None = None
    build: Callable[[float], Transform]
    affine: Callable[[float], dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change of a policy, with its amount and probability."""

    spec: StepSpec
    amount: float
    probability: float


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """A named list of steps."""

    name: str
    description: str
    steps: str


STEPS: Registry[StepSpec] = Registry("augmentation step")
POLICIES: Registry[PolicySpec] = Registry("augmentation")


def affine(**options: Any) -> Transform:
    """An affine map, resampled bilinearly; corners become black."""
    from torchvision.transforms import InterpolationMode, v2

    options.setdefault("degrees", 0)
    built: Transform = v2.RandomAffine(interpolation=InterpolationMode.BILINEAR, **options)
    return built


def of_v2(name: str, **options: Any) -> Transform:
    """A transform of torchvision.transforms.v2 by name."""
    from torchvision.transforms import v2

    built: Transform = getattr(v2, name)(**options)
    return built


def randaugment(strength: int) -> Transform:
    """Two random changes; a strength above 30 would fail at some picture in the middle."""
    if not 0 <= strength <= 30:
        raise ValueError("it goes from 0 to 30")
    return of_v2("RandAugment", num_ops=2, magnitude=strength)


def crop(smallest_area: float) -> Transform:
    """A crop of at least that share of the area, resized to the picture's size."""
    from torchvision.transforms import v2

    def apply(image: torch.Tensor) -> torch.Tensor:
        size = list(image.shape[-2:])
        cropped: torch.Tensor = v2.RandomResizedCrop(
            size, scale=(smallest_area, 1.0), ratio=(0.8, 1.25), antialias=True
        )(image)
        return cropped

    return apply


def rotated(degrees: float) -> dict[str, Any]:
    """A turn as an option of an affine map."""
    return {"degrees": degrees}


def shifted(share: float) -> dict[str, Any]:
    """A move as an option of an affine map."""
    return {"translate": (share, share)}


def sheared(degrees: float) -> dict[str, Any]:
    """A slant as an option of an affine map."""
    return {"shear": degrees}


def zoomed(share: float) -> dict[str, Any]:
    """A change of size as an option of an affine map."""
    return {"scale": (1 - share, 1 + share)}


def jitter_hue(share: float) -> Transform:
    """Hue, and saturation and brightness three times as far."""
    wide = min(3 * share, 1.0)
    return of_v2("ColorJitter", hue=share, saturation=wide, brightness=wide)


for _affine_name, _affine_description, _default, _options in (
    ("rotate", "up to so many degrees", 15.0, rotated),
    ("shift", "up to that share of the side", 0.1, shifted),
    ("shear", "up to so many degrees", 10.0, sheared),
    ("zoom", "in or out, up to that share", 0.2, zoomed),
):
    STEPS.register(
        StepSpec(
            name=_affine_name,
            description=_affine_description,
            amount=_default,
            build=lambda amount, options=_options: affine(**options(amount)),  # type: ignore[misc]
            affine=_options,
        )
    )

for _step_name, _step_description, _amount, _build in (
    ("flip", "left and right changed", None, lambda _: of_v2("RandomHorizontalFlip", p=1.0)),
    ("vflip", "top and bottom changed", None, lambda _: of_v2("RandomVerticalFlip", p=1.0)),
    (
        "shift-scale-rotate",
        "shift 0.06, zoom 0.1, rotate 45 degrees at once",
        None,
        lambda _: affine(degrees=45, translate=(0.06, 0.06), scale=(0.9, 1.1)),
    ),
    ("crop", "a part of at least that share of the area, enlarged", 0.6, crop),
    (
        "brightness-contrast",
        "both up to that share",
        0.2,
        lambda a: of_v2("ColorJitter", brightness=a, contrast=a),
    ),
    (
        "hue",
        "up to that share of a full turn; saturation and brightness up to three times it",
        0.05,
        jitter_hue,
    ),
    (
        "blur",
        "Gaussian, 5 px wide, deviation 0.5 to 1.1",
        None,
        lambda _: of_v2("GaussianBlur", kernel_size=5, sigma=(0.5, 1.1)),
    ),
    (
        "grid",
        "smooth distortion, strength in px",
        30.0,
        lambda a: of_v2("ElasticTransform", alpha=a),
    ),
    ("grey", "colours taken away", None, lambda _: of_v2("Grayscale", num_output_channels=3)),
    (
        "randaugment",
        "two random changes of that strength, 0 to 30 (Cubuk et al., 2020)",
        9.0,
        lambda a: randaugment(round(a)),
    ),
    (
        "trivialaugment",
        "one random change of random strength (Mueller and Hutter, 2021)",
        None,
        lambda _: of_v2("TrivialAugmentWide"),
    ),
    (
        "erase",
        "a box of 2 % up to that share of the area in a mean colour (Zhong et al., 2020)",
        0.33,
        lambda a: of_v2("RandomErasing", p=1.0, scale=(0.02, a), value=MEAN_COLOUR),
    ),
):
    STEPS.register(
        StepSpec(name=_step_name, description=_step_description, amount=_amount, build=_build)
    )

for _name, _description, _steps in (
    ("none", "the pictures as they are", ""),
    ("light", "crop and sideways flip", "crop:0.6,flip:0.5"),
    ("e1", "rotation, shift, shear, zoom, flip", "rotate:15,shift:0.1,shear:10,zoom:0.1,flip:0.5"),
    (
        "e2",
        "seven changes for photographs, with probabilities",
        "flip:0.5,brightness-contrast:0.2:0.2,rotate:12:0.5,shift-scale-rotate:0.2,blur:0.6,"
        "hue:0.05:0.3,grid:30:0.2",
    ),
    ("e5e", "rotation, shift, zoom, flip", "rotate:15,shift:0.1,zoom:0.2,flip:0.5"),
    (
        "xray",
        "small moves and contrast, no sideways flip: left and right mean something",
        "rotate:10,shift:0.05,zoom:0.1,brightness-contrast:0.1:0.5",
    ),
    ("randaugment", "flip and RandAugment", "flip:0.5,randaugment"),
    ("trivialaugment", "flip and TrivialAugment", "flip:0.5,trivialaugment"),
    ("erasing", "crop, flip, random erasing", "crop:0.6,flip:0.5,erase:0.25"),
):
    POLICIES.register(PolicySpec(name=_name, description=_description, steps=_steps))


def parse_policy(text: str) -> tuple[Step, ...]:
    """The steps of a policy's name or of a list.

    Raises:
        UsageError: an unknown step, a number that cannot be.
    """
    if text in POLICIES:
        text = POLICIES.get(text).steps
    if not text.strip():
        return ()
    names = [part.strip() for part in text.split(",")]
    if len(names) == 1 and names[0].split(":")[0] not in STEPS:
        POLICIES.get(names[0], also=STEPS.names)  # its message offers policies and steps
    return tuple(parse_step(name) for name in names)


def parse_step(text: str) -> Step:
    """One step of `NAME[:AMOUNT][:PROBABILITY]`."""
    name, *numbers = text.split(":")
    spec = STEPS.get(name)
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = [float("nan")]
    amount = 0.0 if spec.amount is None else values.pop(0) if values else spec.amount
    probability = values.pop(0) if values else 1.0
    if values or not (0 <= probability <= 1 and amount >= 0):
        form = "NAME[:PROBABILITY]" if spec.amount is None else "NAME[:AMOUNT][:PROBABILITY]"
        raise UsageError(
            f"A step of `augmentation` must be {form} with an amount of 0 or more and a "
            f"probability of 0 to 1, got '{text}'. Correct it."
        )
    return Step(spec=spec, amount=amount, probability=probability)


def flips_sideways(policy: str) -> bool:
    """Whether a policy changes left and right, which matters for X-rays and lettering."""
    return any(step.spec.name == "flip" for step in parse_policy(policy))


def flip_note(policy: str, names: Iterable[str]) -> str | None:
    """A sentence where a policy mirrors pictures whose names say that left and right differ.

    Args:
        policy: a name or a list of steps.
        names: of the data and its classes; paths, too.

    Returns:
        None where the policy does not mirror or no name says so.
    """
    if not flips_sideways(policy):
        return None
    return sided_note(
        f"The augmentation '{policy}'",
        names,
        "Take --augment xray, or a list without 'flip'",
    )


def draw_seed(*key: int) -> int:
    """A seed of 64 bits from some numbers of 0 or more; the same numbers give the same."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class Augmenter:
    """A policy made ready to change pictures."""

    def __init__(self, policy: str, seed: int) -> None:
        """Build the transforms.

        Args:
            policy: a name or a list of steps.
            seed: what is drawn hangs on it and on the keys of the images.

        Raises:
            UsageError: a policy that cannot be.
        """
        self.seed = seed
        self.steps: list[tuple[float, Transform]] = []
        steps = list(parse_policy(policy))
        while steps:
            first = steps.pop(0)
            if first.spec.affine is None:
                self.steps.append((first.probability, build_step(first)))
                continue
            options = first.spec.affine(first.amount)
            while steps and joins(steps[0], first, options):
                following = steps.pop(0)
                assert following.spec.affine is not None
                with possible(following):
                    affine(**following.spec.affine(following.amount))
                options |= following.spec.affine(following.amount)
            with possible(first):
                self.steps.append((first.probability, affine(**options)))

    def __bool__(self) -> bool:
        """Whether anything is changed at all."""
        return bool(self.steps)

    def __call__(
        self, pixels: torch.Tensor, rows: Sequence[int], *, fold: int, view: int | Integers
    ) -> torch.Tensor:
        """Change a batch of pictures, each by its own draw.

        Args:
            pixels: (B, H, W, 3) uint8, left as they are.
            rows: B numbers that name the images.
            fold: 0 or more.
            view: 0 or more, the epoch or the number of a replayed view; one for all or (B,).

        Returns:
            (B, H, W, 3) uint8.
        """
        if not self.steps:
            return pixels
        changed = []
        with torch.random.fork_rng(devices=[]):
            views = np.broadcast_to(view, len(rows)).tolist()
            for image, row, own in zip(pixels, rows, views, strict=True):
                torch.default_generator.manual_seed(draw_seed(self.seed, fold, own, int(row)))
                changed.append(self.apply(image.permute(2, 0, 1)).permute(1, 2, 0))
        return torch.stack(changed)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Change one (3, H, W) uint8 picture by torch's global generator."""
        for probability, transform in self.steps:
            if probability >= 1 or float(torch.rand(())) < probability:
                image = transform(image)
        return image


def build_step(step: Step) -> Transform:
    """The transform of one step, refusing an amount that torchvision cannot take.

    Raises:
        UsageError: such an amount.
    """
    with possible(step):
        return step.spec.build(step.amount)


@contextmanager
def possible(step: Step) -> Iterator[None]:
    """Refuse the amount of a step that torchvision cannot take.

    Raises:
        UsageError: such an amount.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"The step '{step.spec.name}' of `augmentation` must have a possible amount, got "
            f"{step.amount:g} ({error}). Correct it."
        ) from error


def joins(step: Step, first: Step, options: dict[str, Any]) -> bool:
    """Whether a step can be part of the affine map begun by `first`."""
    if step.spec.affine is None or step.probability != first.probability:
        return False
    return not set(step.spec.affine(step.amount)) & set(options)
