"""Registers OpenVLA with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from finetune.models.config import OpenVLAConfig
from finetune.models.openvla import OpenVLAForActionPrediction
from finetune.models.processor import PrismaticProcessor

AutoModelForVision2Seq = AutoModelForImageTextToText  # the class had this name before transformers 5


def register() -> None:
    """Register the config, the model and the processor. May be called more than once."""
    AutoConfig.register("openvla", OpenVLAConfig, exist_ok=True)
    AutoModelForVision2Seq.register(OpenVLAConfig, OpenVLAForActionPrediction, exist_ok=True)
    AutoProcessor.register(OpenVLAConfig, PrismaticProcessor, exist_ok=True)


__all__ = ["AutoConfig", "AutoModelForVision2Seq", "AutoProcessor", "register"]
