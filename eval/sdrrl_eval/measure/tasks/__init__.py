"""One file a task: `read` checks the files and writes the prompts, `score` turns the answers into numbers, and `check`
says what scoring lacks, where it needs more than the answers."""
