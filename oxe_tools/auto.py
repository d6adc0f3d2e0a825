"""OpenVLA in transformers' Auto classes: importing this module registers it.

>>> from oxe_tools.auto import AutoModelForVision2Seq, AutoProcessor
"""

from finetune.models.auto import AutoConfig, AutoModelForVision2Seq, AutoProcessor, register

register()

__all__ = ["AutoConfig", "AutoModelForVision2Seq", "AutoProcessor"]
