"""Recipes: what is trained, on what, and how. One TOML file each; docs/training.md explains the keys.

Shipped ones are in `finetune/recipes/`. What a run *is* stands here; where it reads and writes is said to the command.
"""

import tomllib
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

HERE = Path(__file__).parent / "recipes"
TARGETS = (  # what OpenVLA adapts: peft 0.11's "all-linear", which is no longer what peft takes for it
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
FREE = (  # keys that say how to run and change no result: a run goes on under other ones
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
    """What is trained: a checkpoint (a folder or OWNER/NAME), or a small model that is made here."""

    base: str  # "tiny": random; "smol": SmolLM2-135M with small random vision towers
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights; adapters are float32
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    vision: Tower = Tower()  # of tiny and smol
    text: Text = Text()  # of tiny
    action_dims: Count | None = None  # of the mixture's actions; None: as many as the checkpoint's statistics have

    @property
    def is_made_here(self) -> bool:
        """Say whether there is no checkpoint to start from."""
        return self.base in {"tiny", "smol"}

    def of_checkpoint(self, folder: Path) -> Self:
        """Give the same for the model that lies in a folder."""
        kept = self.model_dump(exclude_unset=True, exclude={"vision", "text"})
        return type(self)(**{**kept, "base": str(folder)})

    @property
    def unused(self) -> tuple[str, ...]:
        """Name the tables that say nothing about this model."""
        return {"tiny": (), "smol": ("text",)}.get(self.base, ("vision", "text"))

    @model_validator(mode="after")
    def _dims_are_used(self) -> Self:
        for key in self.unused:
            if key in self.model_fields_set:
                raise ValueError(f"{key}: the dims of '{self.base}' are its own")
        return self


class DataRecipe(Model):
    """What of a locked mixture is seen, and how."""

    lock: str | None = None  # from the folder of the recipe; --lock counts more
    cameras: Annotated[tuple[str, ...], Field(min_length=1, max_length=1)] = ("primary",)
    chunk: Count = 1  # actions that are predicted at a time
    ends: Literal["mask", "drop"] = "mask"  # of chunks that would cross an episode's end
    augment: bool = True
    resize: Literal["lanczos3", "bilinear", "area"] = "lanczos3"
    missing: Literal["error", "black"] = "error"  # of images that were not recorded
    corrupt: Literal["error", "substitute"] = "error"
    workers: Whole = 0  # processes that read
    threads: Whole = 1  # of each of them


class TrainRecipe(Model):
    """How it is trained. `batch` counts the samples of a step over all processes."""

    mode: Literal["lora", "full", "frozen-vision", "last-layer"] = "lora"
    batch: Count = 16
    micro: Count | None = None  # samples that a process computes at a time; None: all that it has of a batch
    steps: Count = 1000
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    checkpoint_activations: bool = False
    clip: Number = 0  # of the gradients' norm; 0: none
    save_every: Count = 1000
    keep: Count = 2
    log_every: Count = 10
    tensorboard: bool = False


class LoraRecipe(Model):
    """The adapters, as OpenVLA's own."""

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
    milestones: tuple[Count, ...] = ()
    gamma: Above = 0.1  # what a milestone multiplies the rate with

    @model_validator(mode="after")
    def _milestones_fit(self) -> Self:
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError('milestones: go with schedule = "multistep", and are needed there')
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones: must rise")
        return self


class EvalRecipe(Model):
    """When and on what it is evaluated; `every = 0` never."""

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
    train: TrainRecipe = TrainRecipe()
    lora: LoraRecipe = LoraRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    eval: EvalRecipe = EvalRecipe()

    @model_validator(mode="after")
    def _tables_fit(self) -> Self:
        if self.train.mode != "lora" and "lora" in self.model_fields_set:
            raise ValueError(f'lora: goes with train.mode = "lora", not "{self.train.mode}"')
        if self.optimizer.warmup >= self.train.steps:
            raise ValueError(f"optimizer.warmup: {self.optimizer.warmup} of {self.train.steps} steps")
        return self

    def with_(self, settings: Sequence[str]) -> Self:
        """Change keys as `key=value` says, `train.steps=200` for one; the value is TOML, or a text without quotes."""
        told = self.to_json()
        for setting in settings:
            key, found, text = setting.partition("=")
            *tables, last = key.strip().split(".")
            table: Any = told
            for name in tables:
                table = table.setdefault(name, {}) if isinstance(table, dict) else None
            if not found or not last or not isinstance(table, dict):
                raise UsageError(f"--set {setting}: expected a key of the recipe and a value: train.steps=200")
            table[last] = _value(text.strip())
        return validated(type(self), told, f"--set {' '.join(settings)}")

    def to_json(self) -> dict[str, Any]:
        """Give what was said, without defaults."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)

    def to_toml(self, *, lock: str) -> str:
        """Write all that a run is, defaults and the place of its lock included."""
        told = self.model_dump(mode="json", exclude_none=True)
        told["data"]["lock"] = lock
        if self.train.mode != "lora":
            del told["lora"]
        for key in self.model.unused:
            del told["model"][key]
        return tomli_w.dumps(told)

    def differences(self, other: "Recipe") -> list[str]:
        """Say in which keys that change the result another recipe differs; more steps at the same rates do not."""
        ours, theirs = (_flat(recipe.model_dump(mode="json")) for recipe in (self, other))
        free = {*FREE, *(["train.steps"] if self.optimizer.schedule in {"constant", "multistep"} else [])}
        return [
            f"{key} ({theirs.get(key)}, was {ours.get(key)})"
            for key in sorted(ours.keys() | theirs.keys())
            if key not in free and ours.get(key) != theirs.get(key)
        ]


def recipe_names() -> tuple[str, ...]:
    """List the recipes that are shipped."""
    return tuple(sorted(path.stem for path in HERE.glob("*.toml")))


def recipe(target: str) -> Recipe:
    """Load a recipe: a name of `recipe_names()`, or a TOML file."""
    path = Path(target)
    if not target.endswith(".toml"):
        if target not in recipe_names():
            raise SpecError(f"unknown recipe '{target}'{did_you_mean(target, recipe_names())}")
        path = HERE / f"{target}.toml"
    missing = f"{target}: no such recipe{did_you_mean(path.stem, recipe_names())}"
    return load(toml.read(path, missing=missing), where=str(path))


def load(text: str, *, where: str) -> Recipe:
    """Read a recipe; `where` names it in errors."""
    return validated(Recipe, toml.tables(text, where), where)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out.update(_flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value})
    return out
