"""`sdrrl doctor`: what is installed here (installed.py), and whether a recipe has what it names (needs.py)."""
