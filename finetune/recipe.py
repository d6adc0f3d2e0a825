"""Recipes. A recipe is a TOML file with the model, data and settings of a training run.

docs/training.md explains the keys. Shipped recipes are in `finetune/recipes/`. A recipe defines the result of a run.
Where to read and write is given by options of `oxe train`.
"""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.declarations import toml
from schemas.declarations.spec import validated
from schemas.declarations.tables import Model
from schemas.errors import SpecError, UsageError, did_you_mean
from schemas.parsing import parse_toml

HERE = Path(__file__).parent / "recipes"
TARGETS = (  # the layers that OpenVLA adapts; peft 0.11 calls them "all-linear", later versions choose others
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "lm_head",
    "fc1",
    "fc2",
    "fc3",
    "qkv",
    "proj",
    "q",
    "kv",
)
FREE = (  # keys that do not change the result, so a run may continue with other values
    "data.lock",
    "data.workers",
    "data.threads",
    "train.parallel",
    "train.micro",
    "train.checkpoint_activations",
    "train.save_every",
    "train.keep",
    "train.log_every",
    "train.tensorboard",
    "eval.every",
    "eval.batches",
)


def _finite(number: float) -> float:
    if not -inf < number < inf:
        raise ValueError("must be a finite number")
    return number


Number = Annotated[float, Field(ge=0), AfterValidator(_finite)]
Above = Annotated[float, Field(gt=0), AfterValidator(_finite)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Whole = Annotated[int, Field(strict=True, ge=0)]


class Tower(Model):
    """The dims of both vision towers of a small model."""

    dim: Count = 64
    depth: Annotated[int, Field(strict=True, ge=2)] = 3
    heads: Count = 4


class Text(Model):
    """The dims of the language model of `base = "tiny"`."""

    dim: Count = 128
    hidden: Count = 352
    layers: Count = 2
    heads: Count = 4


class ModelRecipe(Model):
    """The model to train: a checkpoint, which is a folder or OWNER/NAME on the Hub; or a small new model."""

    base: str  # "tiny": a random model; "smol": SmolLM2-135M with small random vision towers
    dtype: Literal["float32", "bfloat16"] = "float32"  # dtype of the weights; adapters are float32
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    vision: Tower = Tower()  # for tiny and smol
    text: Text = Text()  # for tiny
    action_dims: Count | None = None  # expected size of an action; None: as in the checkpoint's statistics

    @property
    def is_made_here(self) -> bool:
        """Whether the model is built with new weights, instead of being read from a checkpoint."""
        return self.base in {"tiny", "smol"}

    def of_checkpoint(self, folder: Path) -> Self:
        """Return the same settings, but with the checkpoint in `folder` as base."""
        settings = self.model_dump(exclude_unset=True, exclude={"vision", "text"})
        return type(self)(**{**settings, "base": str(folder)})

    @property
    def unused(self) -> tuple[str, ...]:
        """The names of the tables, `vision` and `text`, that cannot be set for this base."""
        return {"tiny": (), "smol": ("text",)}.get(self.base, ("vision", "text"))

    @model_validator(mode="after")
    def _dims_are_used(self) -> Self:
        for key in self.unused:
            if key in self.model_fields_set:
                raise ValueError(f"{key}: cannot be set for base '{self.base}', which has its own dims")
        return self


class DataRecipe(Model):
    """The data that is read from a locked mixture."""

    lock: str | None = None  # relative to the folder of the recipe; --lock has precedence
    cameras: Annotated[tuple[str, ...], Field(min_length=1)] = ("primary",)  # several require [oft]
    history: Count = 1  # steps whose images the model gets; more than 1 requires [oft]
    chunk: Count = 1  # actions predicted at once
    ends: Literal["mask", "drop"] = "mask"  # what to do with chunks that pass the end of an episode
    augment: bool = True
    resize: Literal["lanczos3", "bilinear", "area"] = "lanczos3"
    missing: Literal["error", "black"] = "error"  # what to do if an image was not recorded
    corrupt: Literal["error", "substitute"] = "error"
    workers: Whole = 0  # processes that read data
    threads: Whole = 1  # per process


class OFTRecipe(Model):
    """OpenVLA-OFT: a chunk of actions is predicted in one pass. Without this table, tokens one after the other."""

    head: Literal["l1", "diffusion", "discrete"] = "l1"
    proprio: bool = False  # whether the model gets the state of the view
    film: bool = False  # whether the instruction modulates the vision towers
    film_pads: bool = False  # whether FiLM's mean of the prompt includes padding, as in the original


class TrainRecipe(Model):
    """The settings of the training. `batch` is the number of samples in a step, summed over all processes."""

    mode: Literal["lora", "full", "frozen-vision", "last-layer"] = "lora"
    batch: Count = 16
    micro: Count | None = None  # samples that a process computes at once; None: its whole share of the batch
    steps: Count = 1000
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    checkpoint_activations: bool = False
    clip: Number = 0  # maximum norm of the gradients; 0: no limit
    ema: Fraction = 0  # decay of the moving average of the weights, which checkpoints contain; 0: none
    save_every: Count = 1000
    keep: Count = 2
    log_every: Count = 10
    tensorboard: bool = False


class LoraRecipe(Model):
    """The settings of LoRA adapters. The defaults are those of OpenVLA."""

    rank: Count = 32
    alpha: Above = 16
    dropout: Fraction = 0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = TARGETS


class OptimizerRecipe(Model):
    """AdamW and its learning rate."""

    lr: Above = 5e-4
    weight_decay: Number = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    schedule: Literal["constant", "linear", "cosine", "multistep"] = "constant"
    warmup: Whole = 0  # steps
    warmup_like_original: bool = False  # with a warm-up, milestones never act: a bug of OpenVLA-OFT
    milestones: tuple[Count, ...] = ()
    gamma: Above = 0.1  # factor by which the learning rate changes at each milestone

    @model_validator(mode="after")
    def _milestones_fit(self) -> Self:
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError('milestones: require schedule = "multistep", and it requires them')
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones: must be in increasing order")
        if self.warmup_like_original and not (self.warmup and self.milestones):
            raise ValueError('warmup_like_original: requires warmup and schedule = "multistep", and only changes these')
        return self


class EvalRecipe(Model):
    """When the model is evaluated, and on which part of the mixture. `every = 0` disables evaluation."""

    every: Whole = 500
    batches: Count = 50
    part: Literal["val", "train"] = "val"


class Recipe(Model):
    """One training run."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    citation: str | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    model: ModelRecipe
    data: DataRecipe = DataRecipe()
    oft: OFTRecipe | None = None
    train: TrainRecipe = TrainRecipe()
    lora: LoraRecipe = LoraRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    eval: EvalRecipe = EvalRecipe()

    @model_validator(mode="after")
    def _tables_fit(self) -> Self:
        if self.train.mode != "lora" and "lora" in self.model_fields_set:
            raise ValueError(f'lora: requires train.mode = "lora", got "{self.train.mode}"')
        if self.oft is None and (len(self.data.cameras), self.data.history) != (1, 1):
            raise ValueError("data.cameras, data.history: OpenVLA takes one image; add [oft] to train on several")
        if self.optimizer.warmup >= self.train.steps:
            raise ValueError(
                f"optimizer.warmup: must be below train.steps = {self.train.steps}, got {self.optimizer.warmup}"
            )
        return self

    def with_(self, settings: Sequence[str]) -> Self:
        """Return the recipe with keys changed by `key=value`, such as `train.steps=200`.

        A value is parsed as TOML. If it is not valid TOML, it is a text without quotes. Raises UsageError if a setting
        does not have this form.
        """
        values = self.to_json()
        for setting in settings:
            key, separator, text = setting.partition("=")
            *tables, last = key.strip().split(".")
            table: Any = values
            for name in tables:
                table = table.setdefault(name, {}) if isinstance(table, dict) else None
            if not separator or not last or not isinstance(table, dict):
                raise UsageError(f"--set {setting}: expected KEY=VALUE, for example train.steps=200")
            table[last] = _value(text.strip())
        return validated(type(self), values, f"--set {' '.join(settings)}")

    def to_json(self) -> dict[str, Any]:
        """Return the keys that were set explicitly, without defaults."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)

    def to_toml(self, *, lock: str) -> str:
        """Return the recipe as TOML, with all defaults and the path of the lock."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["data"]["lock"] = lock
        if self.train.mode != "lora":
            del values["lora"]
        for key in self.model.unused:
            del values["model"][key]
        return tomli_w.dumps(values)

    def differences(self, other: "Recipe") -> list[str]:
        """List the keys that differ and change the result.

        `train.steps` is not listed if the learning rate of a step does not depend on it.
        """
        ours, theirs = (_flat(recipe.model_dump(mode="json")) for recipe in (self, other))
        free = {*FREE, *(["train.steps"] if self.optimizer.schedule in {"constant", "multistep"} else [])}
        return [
            f"{key} ({theirs.get(key)}, was {ours.get(key)})"
            for key in sorted(ours.keys() | theirs.keys())
            if key not in free and ours.get(key) != theirs.get(key)
        ]


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    return tuple(sorted(path.stem for path in HERE.glob("*.toml")))


def recipe(target: str) -> Recipe:
    """Load a recipe. `target` is the name of a shipped recipe or the path of a TOML file.

    Raises SpecError if there is no such recipe or it is not valid.
    """
    path = Path(target)
    if not target.endswith(".toml"):
        if target not in recipe_names():
            raise SpecError(f"unknown recipe '{target}'{did_you_mean(target, recipe_names())}")
        path = HERE / f"{target}.toml"
    missing = f"{target}: no such recipe{did_you_mean(path.stem, recipe_names())}"
    return load(toml.read(path, missing=missing), where=str(path))


def load(text: str, *, where: str) -> Recipe:
    """Parse the text of a recipe. Error messages start with `where`."""
    return validated(Recipe, toml.tables(text, where), where)


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out.update(_flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value})
    return out
