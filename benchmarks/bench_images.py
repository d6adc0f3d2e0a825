"""Decode, resize and augment JPEGs (256x256 to 224x224) like OpenVLA: our code, TensorFlow's ops, Pillow's resize."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from harness import Side, Trial, arguments, compare, publish, run_side, table

COUNT, SIZE = 600, (224, 224)
SET = "256"


def _jpegs() -> list[bytes]:
    """Draw a few scenes as JPEGs of about 25 kB each."""
    import simplejpeg

    from finetune.data.resize import resize

    rng = np.random.default_rng(0)
    scenes = (resize(rng.integers(0, 256, (24, 24, 3), np.uint8), (256, 256), method="bilinear") for _ in range(8))
    grain = (np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8) for scene in scenes)
    return [simplejpeg.encode_jpeg(image, quality=95) for image in grain]


def _pixels() -> list[Any]:
    from schemas.codec import decode

    return [decode(jpeg, like_tensorflow=True) for jpeg in _jpegs()]


def _trial(work: Callable[[Any, int], Any], inputs: Sequence[Any]) -> Trial:
    """Process the inputs one by one; the answer is approximately the sum of the outputs."""

    def run() -> int:
        return round(sum(float(np.asarray(work(inputs[i % len(inputs)], i)).mean()) for i in range(COUNT)) / COUNT)

    return Trial(work=run)


def decode() -> Trial:
    """Only decode."""
    from schemas.codec import decode as decoded

    return _trial(lambda jpeg, _: decoded(jpeg, like_tensorflow=True), _jpegs())


def resize() -> Trial:
    """Resize with lanczos3 and round."""
    from finetune.data.resize import resize as resized

    return _trial(lambda image, _: resized(image, SIZE), _pixels())


def resize_pillow() -> Trial:
    """Resize with Pillow, whose pixels differ."""
    from PIL import Image

    lanczos = Image.Resampling.LANCZOS
    return _trial(lambda image, _: Image.fromarray(image).resize(SIZE, lanczos), _pixels())


def resize_tf() -> Trial:
    """Resize with TensorFlow."""
    shrink = _tf_resize()
    return _trial(lambda image, _: shrink(image), _pixels())


def augment() -> Trial:
    """Augment images of 224x224."""
    from finetune.data.augment import Augmentation
    from finetune.data.augment import augment as augmented
    from finetune.data.resize import resize as resized

    recipe, images = Augmentation(), [resized(image, SIZE) for image in _pixels()]
    return _trial(lambda image, i: augmented(image, recipe.draw(0, i)), images)


def augment_tf() -> Trial:
    """Augment images with TensorFlow, as dlimp does."""
    from finetune.data.resize import resize as resized

    change, seeds = _tf_augment(), _tf_seeds()
    return _trial(lambda image, i: change(image, seeds[i]), [resized(image, SIZE) for image in _pixels()])


def whole() -> Trial:
    """Decode, resize, augment."""
    from finetune.data.augment import Augmentation
    from finetune.data.augment import augment as augmented
    from finetune.data.resize import resize as resized
    from schemas.codec import decode as decoded

    recipe = Augmentation()
    return _trial(
        lambda jpeg, i: augmented(resized(decoded(jpeg, like_tensorflow=True), SIZE), recipe.draw(0, i)), _jpegs()
    )


def whole_tf() -> Trial:
    """Decode, resize, augment in one traced TensorFlow function."""
    import tensorflow as tf

    shrink, change, seeds = _tf_resize(), _tf_augment(), _tf_seeds()
    run = tf.function(lambda jpeg, seed: change(shrink(tf.io.decode_jpeg(jpeg, channels=3)), seed))
    return _trial(lambda jpeg, i: run(jpeg, seeds[i]), [tf.constant(jpeg) for jpeg in _jpegs()])


def _tf_seeds() -> list[Any]:
    """Return seeds as tensors, because TensorFlow would trace the function again for each Python number."""
    import tensorflow as tf

    return [tf.constant((0, i), tf.int32) for i in range(COUNT)]


def _tf_resize() -> Any:
    import tensorflow as tf
    from peers.openvla_images import resized

    return tf.function(resized)


def _tf_augment() -> Any:
    import tensorflow as tf
    from peers.openvla_images import augmented

    return tf.function(augmented)


def _side(make: Callable[[], Trial]) -> Side:
    return lambda _data, _letter: make()


MAKERS = (decode, resize, resize_pillow, resize_tf, augment, augment_tf, whole, whole_tf)
SIDES: dict[str, Side] = {make.__name__: _side(make) for make in MAKERS}
OURS = {"resize_pillow": "resize", "resize_tf": "resize", "augment_tf": "augment", "whole_tf": "whole"}


def main() -> None:
    """Compare all sides, or run one of them."""
    args = arguments(__doc__ or "")
    if args.side:
        return run_side(args, SIDES)
    costs = compare(__file__, args, SET, sides=list(SIDES))
    rows = []
    for side, cost in costs.items():
        ratio = f"{cost.cpu_s / costs[OURS[side]].cpu_s:.1f}" if side in OURS else ""
        rows.append((side, f"{cost.cpu_s / COUNT * 1e3:.3f}", f"{COUNT / cost.cpu_s:,.0f}", ratio))
    publish(
        "images",
        args,
        "# JPEGs of 256x256 to augmented images of 224x224, as in OpenVLA\n",
        table(("side", "CPU ms", "images a CPU second", "CPU over ours"), rows),
        "resize: lanczos3, antialiased, rounded to uint8; _pillow: LANCZOS, which rounds intermediate values (a\n"
        "fifth of the pixels differ). augment: crop, brightness, contrast, saturation, hue. whole: decode, resize,\n"
        "augment; _tf: a traced function, without tf.data.\n",
        packages=("numpy", "pillow", "simplejpeg", "tensorflow-cpu"),
    )
    return None


if __name__ == "__main__":
    main()
