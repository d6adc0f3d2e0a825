"""Every case in which a policy, its training or its data are refused or pointed out, as commands to run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.docs.toy import ROOT
from tests.finetune.lab import locked
from tests.finetune.runs import ADAPTERS, arguments, children, losses, make_lock, run
from tests.finetune.vla import BASE, DATA
from tests.pipelines.mix.lab import make_datasets
from tests.pipelines.toy import Run, columns, jpeg, make_toy, oxe
from tests.waiting import PATIENCE, wait_until

ADAPTER, IMAGE = DATA / "adapter", DATA / "io_base/image1.png"
ASK = ("--instruction", "close the pot")
WEIGHTS, STATISTICS = "model.safetensors", "dataset_statistics.json"
HEAD = "language_model.lm_head.weight"
QUICK = (*ADAPTERS, "train.steps=1", "eval.every=0", "optimizer.lr=1e-2", "data.augment=false")


class Lab:
    """A folder with copies of the reference checkpoint, and with a small trained policy. Both are damaged by cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def new(self, name: str) -> Path:
        """Return a path for a case; its last part is shown in the docs."""
        self.count += 1
        (self.folder / str(self.count)).mkdir()
        return self.folder / str(self.count) / name

    @cached_property
    def whole(self) -> Path:
        """A copy of the reference checkpoint with all tensors in one file."""
        folder = Path(shutil.copytree(BASE, self.new("model"), ignore=shutil.ignore_patterns("*.safetensors*")))
        tensors = {key: value for path in BASE.glob("*.safetensors") for key, value in load_file(path).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        return folder

    def checkpoint(self, change: Callable[[dict[str, Any]], object] | None = None, **files: Any) -> Path:
        """Copy the reference checkpoint, change its tensors, and write files; a function changes what a file has."""
        folder = Path(shutil.copytree(self.whole, self.new("model")))
        if change:
            tensors = load_file(folder / WEIGHTS)
            change(tensors)
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        for name, edit in files.items():
            content = json.loads((folder / f"{name}.json").read_text())
            edit(content)
            (folder / f"{name}.json").write_text(json.dumps(content))
        return folder

    def statistics(self, edit: Callable[[dict[str, Any]], object]) -> Path:
        """Copy the reference checkpoint, and change the statistics of the actions of one dataset."""
        return self.checkpoint(dataset_statistics=lambda content: edit(content["tiny_bridge"]["action"]))

    def adapter(self, change: Callable[[dict[str, Any]], object], base: Path | None = None) -> Path:
        """Copy the reference adapters, change their tensors, and name their base."""
        folder = Path(shutil.copytree(ADAPTER, self.new("adapter")))
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(base or BASE)
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    @cached_property
    def lock(self) -> Path:
        return make_lock(self.new("data"))

    @cached_property
    def run(self) -> Path:
        """A run that trained adapters on a small base."""
        out = self.new("run")
        run(self.lock, out, *QUICK)
        return out

    @cached_property
    def step(self) -> Path:
        return self.run / "step-00000001"

    @cached_property
    def merged(self) -> Path:
        out = self.run / "merged"
        done = oxe("merge", "--adapter", self.step, "--out", out)
        assert done.code == 0, done.err
        return out

    def moved(self, change: Callable[[dict[str, Any]], object]) -> Path:
        """Copy the run, and change the tensors of its base."""
        out = Path(shutil.copytree(self.run, self.new("run")))
        tensors = load_file(out / "base" / WEIGHTS)
        change(tensors)
        save_file(tensors, out / "base" / WEIGHTS, metadata={"format": "pt"})
        config = json.loads((out / "step-00000001/adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(out / "base")
        (out / "step-00000001/adapter_config.json").write_text(json.dumps(config))
        return out / "step-00000001"

    def wordy(self) -> Path:
        """Merge the small policy, and let it predict nothing but two words, whatever it sees."""
        out = Path(shutil.copytree(self.merged, self.new("wordy")))
        tensors = load_file(out / WEIGHTS)
        tensors[HEAD] = torch.zeros_like(tensors[HEAD])
        tensors[HEAD][5], tensors[HEAD][2] = 1, -1
        save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
        return out


@dataclass(frozen=True)
class Case:
    """What is wrong, and a function that runs the command."""

    what: str
    run: Callable[[Lab], Run]
    is_slow: bool = False


def predict(model: Path, *more: str | Path, image: Path = IMAGE, ask: Sequence[str] = ASK) -> Run:
    key = () if "--unnorm-key" in more else ("--unnorm-key", "tiny_bridge")
    return oxe("predict", "--model", model, "--image", image, *ask, *key, *more)


def own(model: Path, *more: str | Path) -> Run:
    """Predict with the small trained policy."""
    return predict(model, "--unnorm-key", "one", *more)


def put(name: str, value: float, *, dtype: Any = None) -> Callable[[dict[str, Any]], object]:
    """Return a change that puts a number into a tensor."""

    def change(tensors: dict[str, Any]) -> None:
        tensor = tensors[name].to(dtype or tensors[name].dtype)
        tensor.view(-1)[3] = value
        tensors[name] = tensor

    return change


def scaled(tensors: dict[str, Any]) -> None:
    for key in tensors:
        if ".lora_B." in key:
            tensors[key] *= 1e30


def says_a_word(tensors: dict[str, Any]) -> None:
    """Let the end of the text win over the first token that the reference predicts."""
    tensors[HEAD][2] = 10 * tensors[HEAD][31860]


def turned(lab: Lab, form: str) -> Path:
    path = lab.new(f"front.{form}")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(IMAGE) as image:
        image.save(path, exif=exif)
    return path


def turned_source(lab: Lab) -> Run:
    path = lab.new("frame.jpg")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, exif=exif)
    frames = [jpeg(0), path.read_bytes(), path.read_bytes()]
    return make_toy(lab.new("toy"), [columns(0, image=frames)]).convert()


def mix_lock(lab: Lab, tables: str, *, gripper: float | None = 1.0) -> Run:
    """Lock a mixture of one dataset, whose gripper is always the same if `gripper` is given."""
    episodes = [columns(i, steps=5) for i in range(4)]
    for episode in episodes:
        if gripper is not None:
            episode["action"][:, 3] = gripper  # type: ignore[index]
    toy = make_toy(lab.new("data"), episodes)
    assert toy.convert().code == 0
    text = 'name = "kitchen"\nweighting = "relative"\n[weights]\nkitchen = 1.0\n[sources]\nkitchen = { uri = "out" }\n'
    mixture = toy.folder / "kitchen.toml"
    mixture.write_text(text + tables)
    return oxe("mix", "lock", mixture)


def evaluated_twice(lab: Lab) -> Run:
    words = ("eval", "--open-loop", "--model", lab.merged, "--lock", lab.lock, "--limit", "1")
    assert oxe(*words).code == 0
    return oxe(*words)


def evaluated_words(lab: Lab) -> Run:
    done = oxe("eval", "--open-loop", "--model", lab.wordy(), "--lock", lab.lock, "--limit", "4", "--out", lab.new("e"))
    last = [line for line in done.out.splitlines() if line.startswith("all: ")]
    return Run(code=done.code, out="", err=f"{last[0]}\n{done.err}")


def trained(lab: Lab, *settings: str) -> Run:
    return oxe(*arguments(lab.lock, lab.new("run"), "eval.every=0", "train.steps=1", *settings))


def trained_long(lab: Lab) -> Run:
    folder = make_datasets(lab.new("data"), {"one": (3,), "two": (4,)})
    long = [columns(0, steps=3, language_instruction=[b"close the pot " * 900] * 3)]
    toy = make_toy(folder / "long", long)
    assert toy.convert().code == 0
    shutil.rmtree(folder / "one")
    toy.out.rename(folder / "one")
    return oxe(*arguments(locked(folder), lab.new("run"), "eval.every=0", "train.steps=1"))


def trained_with_a_killed_worker(lab: Lab) -> Run:
    out = lab.new("run")
    told = arguments(lab.lock, out, "eval.every=0", "train.steps=100000", "data.workers=1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "oxe_tools", *told]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: process.poll() is not None or ((out / "log.jsonl").exists() and len(losses(out)) > 1))
        for server in children(process.pid):
            for worker in children(server):
                os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    return Run(code=process.returncode, out="", err=err)


def own_data_as_openvla(lab: Lab) -> Run:
    """Lock own data, whose Spaces give the view `eef_delta`, with the view `openvla`."""
    toy = make_toy(lab.new("data"))
    text = toy.spec.read_text().replace('gripper = "open_is_1"', 'gripper = "open_is_1"\nrotation = "euler_xyz"')
    parts = 'rpy = { kind = "rotation", dims = ["roll", "pitch", "yaw"], unit = "rad", mode = "delta" }'
    text = text.replace("[embodiment.action.parts]", f"[embodiment.action.parts]\n{parts}")
    toy.spec.write_text(text.replace("[action]", '[action]\nrpy = "action[:3]"'))
    done = toy.convert()
    assert done.code == 0, done.err
    mixture = toy.folder / "kitchen.toml"
    mixture.write_text(
        'name = "kitchen"\nview = "openvla"\nweighting = "relative"\n[weights]\nkitchen = 1.0\n'
        '[sources]\nkitchen = { uri = "out" }\n'
    )
    return oxe("mix", "lock", mixture)


def nan(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda action: action[key].__setitem__(2, value)


def cases() -> Iterator[Case]:
    yield from (
        Case("adapters, and a base with other weights", lambda lab: own(lab.moved(put(HEAD, 2.0)))),
        Case("adapters, and a base that was converted to another type", lambda lab: own(
            lab.moved(lambda tensors: tensors.update({key: value.double() for key, value in tensors.items()})))),
        Case("adapters, and the model into which they are merged", lambda lab: oxe(
            "merge", "--adapter", lab.step, "--base", lab.merged, "--out", lab.new("again"))),
        Case("adapters of peft, which do not record their base", lambda lab: predict(lab.adapter(lambda _: None))),
        Case("a weight that is not a number", lambda lab: predict(
            lab.checkpoint(put("projector.fc1.bias", float("nan"))))),
        Case("an infinite weight in float16", lambda lab: predict(
            lab.checkpoint(put(HEAD, float("-inf"), dtype=torch.float16)))),
        Case("an adapter that is not a number", lambda lab: predict(lab.adapter(
            put("base_model.model.projector.fc1.lora_A.weight", float("nan"))))),
        Case("adapters so large that the output is not finite", lambda lab: predict(lab.adapter(scaled))),
        Case("quantized weights", lambda lab: predict(lab.checkpoint(put(HEAD, 1, dtype=torch.int8)))),
        Case("a quantized checkpoint", lambda lab: predict(lab.checkpoint(
            config=lambda config: config.update(quantization_config={"quant_method": "bitsandbytes"})))),
        Case("flash attention without its package", lambda lab: trained(lab, "model.attention=flash_attention_2")),
        Case("q01 above q99", lambda lab: predict(lab.statistics(nan("q01", 9.0)))),
        Case("a minimum above the maximum", lambda lab: predict(lab.statistics(nan("max", -9.0)))),
        Case("a statistic that is not a number", lambda lab: predict(lab.statistics(nan("q99", float("nan"))))),
        Case("a missing statistic", lambda lab: predict(lab.statistics(lambda action: action.pop("q01")))),
        Case("a statistic for too few dimensions", lambda lab: predict(lab.statistics(
            lambda action: action["q99"].pop()))),
        Case("a mask of another length", lambda lab: predict(lab.statistics(lambda action: action["mask"].pop()))),
        Case("an action beyond any physical size", lambda lab: predict(lab.statistics(
            lambda action: action.update(q99=[1e300] * 7, max=[1e300] * 7)))),
        Case("an instruction longer than the model's positions", lambda lab: predict(
            lab.whole, ask=("--instruction", "close the pot " * 900))),
        Case("such an instruction in training", trained_long),
        Case("a predicted token that is not an action", lambda lab: predict(lab.checkpoint(says_a_word))),
        Case("such a token with `--lenient`", lambda lab: predict(lab.checkpoint(says_a_word), "--lenient")),
        Case("such tokens in an evaluation", evaluated_words),
        Case("an instruction that is not UTF-8", lambda lab: predict(lab.whole, ask=("--instruction", "close \udcff"))),
        Case("an image that its EXIF data turn", lambda lab: predict(lab.whole, image=turned(lab, "jpg"))),
        Case("such an image with `--ignore-exif`", lambda lab: predict(
            lab.whole, "--ignore-exif", image=turned(lab, "png"))),
        Case("such images in a conversion", turned_source),
        Case("a gripper that never moves, with OpenVLA's rule", lambda lab: mix_lock(
            lab, '[normalize]\nconstant = "zero"')),
        Case("a constant that has no token", lambda lab: mix_lock(lab, "", gripper=5.0)),
        Case("a held-out share that is not reached", lambda lab: mix_lock(
            lab, "[holdout]\nshare = 0.01", gripper=None)),
        Case("own data with the view of OpenVLA", own_data_as_openvla),
        Case("an evaluation that exists", evaluated_twice),
        Case("a killed process that reads data", trained_with_a_killed_worker, is_slow=True),
    )  # fmt: skip
