"""``python -m tinypress_course`` is ``tito``."""

from tinypress_course.cli import main

main()
