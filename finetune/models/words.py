"""Builds the tokenizer of `base = "tiny"`. Its tokens are bytes, the words of common instructions, and 256 actions."""

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from schemas.parsing import parse_json

UNKNOWN, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<PAD>"
SPACE = "Ġ"  # a single space in the byte alphabet
ACTIONS = 256
LENGTH = 2048  # length in tokens of the longest prompt, as in OpenVLA
WORDS = """
In: What action should the robot take to Out:
a above and apple arm away back banana basket behind below between big black blue board book bottle bottom bowl box
bread brush burner button cabinet can carrot cereal cheese chicken close cloth coffee container corn corner counter cube
cup cupboard cutting dish door down drawer drink drying edge eggplant end faucet flip fold fork from front fruit gently
grab grasp green gripper handle hand hot in inside into it ketchup kettle key knife ladle left lever lid lift light
machine marker metal microwave middle milk moka mouse move mug mushroom mustard napkin near next object of off on onto
open orange out oven over pan paper pen pepper pick pink place plastic plate pot potato pour pull purple push put rack
red refrigerator release remove rice right robot rotate rub salt sauce shelf shoe side silver sink slide small soup
spatula spice sponge spoon stack stove strawberry stuff sushi sweep switch table take tape the toaster to tomato top
towel toy tray turn twist under unfold up upright vegetable vessel wash water white whole wipe with wooden yellow
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer. Every call returns the same one.

    Each word of the list is one token. Other text is split into smaller pieces, down to single bytes. The last 256 ids
    stand for actions; no text is tokenized to them. After them comes the padding token.
    """
    words = Tokenizer(_with_actions(_trained()))
    words.pre_tokenizer, words.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    return ready(words, bos=BOS, eos=EOS, pad=PAD, unk_token=UNKNOWN)


def ready(words: Tokenizer, *, bos: str, eos: str, pad: str, **special: str) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer for transformers. Each text starts with `bos`, and the model inserts the image after it."""
    words.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, words.token_to_id(bos))])
    kwargs = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "model_max_length": LENGTH, **special}
    return PreTrainedTokenizerFast(tokenizer_object=words, padding_side="right", **kwargs)


def _trained() -> Tokenizer:
    trainer = BpeTrainer(
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        vocab_size=1 << 16,  # large enough for all words of the list
        show_progress=False,
    )
    words = Tokenizer(BPE())
    words.pre_tokenizer = ByteLevel(add_prefix_space=False)
    words.train_from_iterator([WORDS.replace("\n", " ")], trainer)
    return words


def _with_actions(words: Tokenizer) -> BPE:
    """Add the actions to the vocabulary, but not to the merges, so that no text is tokenized to them."""
    vocab = words.get_vocab()
    actions = {f"<action {i}>": len(vocab) + i for i in range(ACTIONS)}
    merges = [tuple(pair) for pair in parse_json(words.to_str())["model"]["merges"]]
    return BPE(vocab={**vocab, **actions}, merges=merges)
