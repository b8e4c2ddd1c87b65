"""An app that ends the program that imports it."""

import sys

sys.exit(0)
