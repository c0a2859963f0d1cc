"""The evaluator: reads an exported checkpoint and knows nothing of how it was trained."""
