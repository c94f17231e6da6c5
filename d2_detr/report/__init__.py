"""The HTML report of a training or an evaluation."""
