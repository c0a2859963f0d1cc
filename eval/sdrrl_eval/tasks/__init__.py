"""One file a task: `read` checks the files and writes the prompts, `score` turns the answers into numbers."""
