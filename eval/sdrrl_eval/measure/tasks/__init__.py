"""One file a benchmark: its class owns its keys, its reading, its prompt and its scores (measure/task.py)."""
