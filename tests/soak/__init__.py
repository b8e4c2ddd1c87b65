"""Hours at a steady load."""
