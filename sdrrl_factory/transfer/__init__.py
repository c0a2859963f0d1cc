"""The transfer set (the paper's sections 3.2.1 to 3.2.4)."""
