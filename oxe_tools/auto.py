"""Register OpenVLA with transformers' Auto classes when this module is imported.

>>> from oxe_tools.auto import AutoModelForVision2Seq, AutoProcessor
"""

from finetune.models.auto import AutoConfig, AutoModelForVision2Seq, AutoProcessor, register

register()

__all__ = ["AutoConfig", "AutoModelForVision2Seq", "AutoProcessor"]
