"""``python -m tinypress``."""

from tinypress.cli import main

main()
