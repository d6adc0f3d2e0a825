"""Read RLDS without TensorFlow: TFRecord framing, the `tf.train.Example` wire format and `features.json`."""
