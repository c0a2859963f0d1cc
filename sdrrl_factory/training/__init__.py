"""What runs inside `llamafactory-cli train`, and nothing else."""
