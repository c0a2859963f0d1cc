"""Measures a checkpoint: answers, scores, predictions."""
