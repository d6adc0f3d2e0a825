"""OpenVLA's image pipeline in TensorFlow's ops: dlimp's resizing and augmentation with OpenVLA's parameters."""

from typing import Any

import tensorflow as tf

SIZE = (224, 224)


def resized(image: Any) -> Any:
    """Resize with lanczos3 and round."""
    image = tf.image.resize(image, SIZE, method="lanczos3", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def augmented(image: Any, seed: Any) -> Any:
    """Crop, and change brightness, contrast, saturation and hue."""
    x = tf.image.convert_image_dtype(image, tf.float32)
    side = tf.sqrt(0.9)
    start = tf.random.stateless_uniform((1,), seed, 0, 1 - side)
    box = tf.stack([start, start, start + side, start + side], axis=1)
    x = tf.clip_by_value(tf.image.crop_and_resize(x[None], box, [0], SIZE)[0], 0, 1)
    x = tf.clip_by_value(tf.image.stateless_random_brightness(x, 0.2, seed), 0, 1)
    x = tf.clip_by_value(tf.image.stateless_random_contrast(x, 0.8, 1.2, seed), 0, 1)
    x = tf.clip_by_value(tf.image.stateless_random_saturation(x, 0.8, 1.2, seed), 0, 1)
    x = tf.clip_by_value(tf.image.stateless_random_hue(x, 0.05, seed), 0, 1)
    return tf.image.convert_image_dtype(x, tf.uint8, saturate=True)
