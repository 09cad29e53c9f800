"""The book's settings for Sphinx. Which pages there are, and their numbers, stand in _toc.yml alone."""

project = "tinypress, the course"
author = "the tinypress authors"
extensions = ["myst_nb", "sphinx_external_toc"]
external_toc_path = "_toc.yml"
nb_execution_mode = "off"  # the notebooks come executed from build.py
nb_merge_streams = True
html_theme = "sphinx_book_theme"
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False}
html_show_copyright = False
myst_enable_extensions = ["dollarmath"]
html_title = project
