"""OpenVLA's published snippet runs with only its import changed."""

import subprocess
import sys

import numpy as np
import pytest

from tests.finetune.vla import BASE, KEYS, PROMPTS, image, reference

torch = pytest.importorskip("torch", reason="the models need the extra finetune")

from oxe_tools.auto import AutoConfig, AutoModelForVision2Seq, AutoProcessor  # noqa: E402 - torch is an extra


def test_the_well_known_snippet_gives_the_originals_action() -> None:
    processor = AutoProcessor.from_pretrained(BASE)
    vla = AutoModelForVision2Seq.from_pretrained(
        BASE, attn_implementation="sdpa", torch_dtype=torch.float32, low_cpu_mem_usage=True
    ).to("cpu")
    inputs = processor(PROMPTS[0], image(0)).to("cpu", dtype=torch.float32)
    action = vla.predict_action(**inputs, unnorm_key=KEYS[0], do_sample=False)
    np.testing.assert_array_equal(action, reference()["action_0"])


def test_the_config_is_known_by_its_model_type() -> None:
    assert AutoConfig.from_pretrained(BASE).vision_backbone_id == "dinosiglip-vit-so-224px"


def test_torch_is_loaded_by_this_module_and_by_no_other_of_the_public_ones() -> None:
    code = "import sys, oxe_tools, oxe_tools.cli.main; assert not {'torch', 'transformers'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
