"""The reference checkpoints of OpenVLA-OFT, what the original computes with them, and the same as we compute it."""

import copy
import json
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.actions import ActionTokenizer
from schemas.source import Array
from tests.finetune.vla import BASE, DATA

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from finetune.models import heads, parallel_decoding  # noqa: E402 - only where torch is
from finetune.models.openvla import OpenVLAForActionPrediction  # noqa: E402
from finetune.models.processor import PrismaticProcessor  # noqa: E402

PLATFORMS = ("libero", "aloha", "bridge")
LIBERO, ALOHA, BRIDGE = (DATA / f"oft_{platform}" for platform in PLATFORMS)
PROPRIO_ROW = {"l1_proprio_1img": 0, "l1_proprio_multi": 1, "l1_proprio_2img": 2}  # others: 0
VOCABULARY = slice(31744, 32064)  # the part of the vocabulary that the references have
INFORMATIONAL = "trainmodel_unmerged.actions"
STOP, PAD, IGNORED = 2, 32000, -100
CUT = 16  # rows of an array of which the references have only the first and the last


@cache
def reference(platform: str) -> dict[str, Array]:
    with np.load(DATA / f"io_oft_{platform}/reference.npz") as file:
        return dict(file)


@cache
def meta(platform: str) -> dict[str, Any]:
    return dict(json.loads((DATA / f"io_oft_{platform}/meta.json").read_text()))


@cache
def processor() -> PrismaticProcessor:
    return PrismaticProcessor.from_pretrained(BASE)


def load(platform: str, **options: Any) -> OpenVLAForActionPrediction:
    """Load a reference checkpoint. Those of ALOHA and Bridge consist of heads for the weights of the base model."""
    base = {} if platform == "libero" else {"base": BASE}
    return OpenVLAForActionPrediction.from_pretrained(
        DATA / f"oft_{platform}", **{**base, "processor": processor(), "self_test": False, **options}
    )


@cache
def model(platform: str, attention: str = "sdpa") -> OpenVLAForActionPrediction:
    """Return a reference model; tests share it and must not change it."""
    return load(platform, attn_implementation=attention)


def variant(vla: OpenVLAForActionPrediction, **settings: Any) -> OpenVLAForActionPrediction:
    """Return a model with the same weights and some other settings."""
    other = copy.copy(vla)
    assert other.oft is not None
    other.oft = replace(other.oft, **settings)
    return other


@cache
def image(platform: str, i: int) -> Image.Image:
    with Image.open(DATA / f"io_oft_{platform}/image{i}.png") as file:
        file.load()
        return file


def images(platform: str, count: int) -> list[Image.Image]:
    return [image(platform, i) for i in range(count)]


@dataclass(frozen=True)
class Case:
    """A prediction of the original, as the arguments of `predict_action`."""

    platform: str
    name: str

    @property
    def entry(self) -> dict[str, Any]:
        return dict(meta(self.platform)["cases"][self.name])

    @property
    def images(self) -> list[Image.Image]:
        return images(self.platform, self.entry["num_images"])

    @property
    def instruction(self) -> str:
        return str(meta(self.platform)["instructions"][self.entry["prompt"]])

    @property
    def proprio(self) -> Array | None:
        row = PROPRIO_ROW.get(self.name, 0)
        return reference(self.platform)["proprio_raw"][row] if self.entry["proprio"] else None

    @property
    def sampling(self) -> dict[str, Any]:
        """The noise and the number of steps, for diffusion."""
        noise = reference(self.platform).get(f"{self.name}.noise")
        return {} if noise is None else {"noise": noise, "diffusion_steps": int(self.name.partition("_T")[2])}

    def predict(self, vla: OpenVLAForActionPrediction, **changes: Any) -> Array:
        vla = variant(vla, head="discrete") if self.name.startswith("discrete") else vla
        arguments = {"proprio": self.proprio, **self.sampling, **changes}
        seen, instruction = arguments.pop("images", self.images), arguments.pop("instruction", self.instruction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some cases lack images or the proprio
            return vla.predict_action(seen, instruction, meta(self.platform)["unnorm_key"], **arguments)


def cases(platform: str) -> list[Case]:
    return [Case(platform, name) for name in meta(platform)["cases"]]


ALL_CASES = [case for platform in PLATFORMS for case in cases(platform)]


@dataclass
class Trace:
    """What a model computed: image tokens and last hidden states, by pass."""

    projected: list[Any] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)


@contextmanager
def traced(vla: OpenVLAForActionPrediction) -> Iterator[Trace]:
    trace = Trace()
    hooks = [
        vla.projector.register_forward_hook(lambda _m, _i, out: trace.projected.append(out)),
        vla.language_model.model.register_forward_hook(lambda _m, _i, out: trace.hidden.append(out.last_hidden_state)),
    ]
    yield trace
    for hook in hooks:
        hook.remove()


# Everything that the references have, as we compute it


def computed(platform: str, vla: OpenVLAForActionPrediction, names: Collection[str]) -> dict[str, Array]:
    """Compute the cases in `names`, and what a reference has besides cases."""
    ours: dict[str, Any] = {}
    for case in cases(platform):
        ours |= of_case(case, vla) if case.name in names else {}
    pixels = processor()("", images(platform, meta(platform)["num_images"]))["pixel_values"]
    ours["pixel_values_slice"] = pixels[:, :, ::16, ::16]
    ours["proprio_normalized"] = vla.policy.normalized_proprio(reference(platform)["proprio_raw"], None, count=3)
    ours |= trained(platform, vla) | (of_ddim(platform) if platform == "bridge" else {})
    return {name: np.asarray(value) for name, value in ours.items()}


def of_case(case: Case, vla: OpenVLAForActionPrediction) -> dict[str, Any]:
    """Predict, and return what the reference has of a case: actions, hidden states, image tokens and logits."""
    assert vla.oft is not None
    with traced(vla) as trace, torch.no_grad():
        actions = case.predict(vla)
        hidden, patches, size = trace.hidden[-1], trace.projected[0], vla.oft.size
        logits = vla.get_output_embeddings()(hidden) if case.name == "discrete_multi" else hidden
    ours = {
        "actions": actions,
        "actions_hidden": hidden[:, -size - 2 : -2],  # one position before each number; the stop token is the last
        "projected": patches,
        "projected_first16": patches[:, :CUT],
        "projected_last16": patches[:, -CUT:],
        "seq_len": hidden.shape[1],
        "logits_argmax": logits.argmax(-1),
        "logits_actionvocab_tail": logits[0, -58:, VOCABULARY],
    }
    if case.sampling:
        ours["timesteps"] = heads.DDIM().timesteps(case.sampling["diffusion_steps"])
    named = {f"{case.name}.{key}": value for key, value in ours.items()}
    return {key: value for key, value in named.items() if key in reference(case.platform)}


@cache
def batch(platform: str) -> dict[str, Any]:
    """Return the arguments of `chunk` for the original's padded batch of three samples, which have the same images."""
    vla, given = model(platform), reference(platform)
    assert vla.oft is not None
    seen = images(platform, meta(platform)["num_images"])
    tokens = processor()(meta(platform)["prompts"][:3], [seen] * 3)
    ids, mask = parallel_decoding.with_prefix(tokens["input_ids"], tokens["attention_mask"], prefix=29871)
    ids, mask, tail = parallel_decoding.with_placeholders(ids, mask, size=vla.oft.size, stop=STOP, pad=PAD)
    proprio = vla.policy.normalized_proprio(given["proprio_raw"], None, count=3)
    common = {"attention_mask": mask, "tail": tail, "pixel_values": tokens["pixel_values"]}
    ours = {"input_ids": ids, **common, "proprio": torch.tensor(proprio)}
    if vla.oft.head == "diffusion":
        times = torch.tensor(given["train.timesteps"])
        noisy = heads.DDIM().noisy(*(torch.tensor(given[f"train.{key}"]) for key in ("actions", "noise")), times)
        ours |= {"noisy": noisy, "timesteps": times}
    return ours


def trained(platform: str, vla: OpenVLAForActionPrediction) -> dict[str, Any]:
    """Compute batch, predictions, losses and metrics of a step of training, by the original's formulas."""
    assert vla.oft is not None
    inputs, given, numbers = batch(platform), reference(platform), len(vla.oft.actions)
    tokens, tail = torch.tensor(ActionTokenizer().encode(given["train.actions"])).flatten(1), inputs["tail"]
    ids = inputs["input_ids"].scatter(1, tail[:, :-1], tokens)
    labels = torch.full_like(ids, IGNORED).scatter(1, tail, ids.gather(1, tail))
    is_first = torch.zeros_like(ids, dtype=torch.bool).scatter(1, tail[:, :numbers], value=True)[:, 1:]
    is_next = torch.zeros_like(is_first).scatter(1, tail[:, numbers:-1] - 1, value=True)
    with traced(vla) as trace, torch.no_grad():
        predicted = vla.chunk(**inputs)
        hidden = trace.hidden[0]
        inserted = hidden.shape[1] - ids.shape[1]
        logits = vla.get_output_embeddings()(hidden[:, inserted:-1])
    result = logits.argmax(-1)
    actions = torch.tensor(given["train.actions"])
    ours = {
        "batch_input_ids": ids,
        "batch_attention_mask": inputs["attention_mask"].bool(),
        "batch_labels": labels,
        "batch_proprio": inputs["proprio"],
        "current_action_mask": is_first,
        "next_actions_mask": is_next,
        "pred_token_ids": result,
        "actions_hidden_b0": hidden[0, inserted + tail[0, :-1] - 1],
        "lm_loss": torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        ),
    }
    decode = ActionTokenizer().decode
    for name, places in (("curr", is_first), ("next", is_next)):
        right, ours_at = labels[:, 1:][places], result[places]
        ours[f"{name}_acc"] = (right == ours_at).float().mean()
        ours[f"{name}_token_l1"] = np.abs(decode(right) - decode(ours_at)).mean()
    if vla.oft.head == "l1":
        error = (predicted - actions).abs()
        ours |= {"predicted_actions": predicted, "loss": error.mean()}
        ours |= {"curr_l1": error[:, 0].mean(), "next_l1": error[:, 1:].mean()}
    else:
        ours |= {"noise_pred": predicted, "loss": (predicted - torch.tensor(given["train.noise"])).square().mean()}
        ours["noisy_actions"] = inputs["noisy"]
        ours["timestep_embeddings"] = heads.timestep_embedding(inputs["timesteps"], hidden.shape[-1])[:, None]
    return {f"train.{key}": value for key, value in ours.items()}


def of_ddim(platform: str) -> dict[str, Any]:
    """Compute what the reference has of the sampler."""
    sampler, given = heads.DDIM(), reference(platform)
    x, noise = (torch.tensor(given[f"ddim.{key}"]) for key in ("x", "eps"))
    return {
        "ddim.alphas_cumprod": sampler.alphas,
        "ddim.time_embed_49_10_0": heads.timestep_embedding(torch.tensor([49, 10, 0]), 24),
        "ddim.add_noise_t7_t31": sampler.noisy(x, noise, torch.tensor([7, 31])),
        **{f"ddim.step_T50_t{time}": sampler.step(x, noise, time, count=50) for time in (0, 20, 49)},
    }


def is_input(name: str) -> bool:
    """Whether an array is an input of the original, not its output."""
    inputs = ("proprio_raw", "train.actions", "train.noise", "train.timesteps", "ddim.x", "ddim.eps")
    return name in inputs or (name.startswith("diffusion_") and name.endswith(".noise"))


def outputs(platform: str) -> set[str]:
    """Name the arrays of a reference that must be equal to ours."""
    return {name for name in reference(platform) if not is_input(name) and name != INFORMATIONAL}


def tolerance(name: str, expected: Array) -> Array | float:
    """Return the largest allowed difference.

    It is 0 for ids, one step of float16 if that is above 1e-4, 1e-3 for diffusion, and 1e-4 for others.
    """
    if expected.dtype.kind in "iub":
        return 0.0
    if expected.dtype == np.float16:
        return np.maximum(np.spacing(np.abs(expected)).astype(np.float64), 1e-4)
    if name.startswith("discrete") and name.endswith(".actions"):
        return 1e-12  # decoded from tokens, which are exact
    return 1e-3 if name.startswith("diffusion_") or name == "train.noise_pred" else 1e-4


def is_off(name: str, ours: Any, expected: Array) -> bool:
    """Whether an array differs from the original's by more than the tolerance."""
    ours = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours)
    if ours.shape != expected.shape:
        return True
    off = np.abs(ours.astype(np.float64) - expected.astype(np.float64))
    return not bool((off <= tolerance(name, expected)).all())
