"""RLDS as bytes: TFRecord framing, the `tf.train.Example` wire format, `features.json`. No TensorFlow."""
