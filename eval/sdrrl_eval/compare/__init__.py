"""Sets finished runs side by side."""
