"""The site: `python -m sphinx -W -n docs site`. What is fastrnn's own in it is in extension.py."""

import sys
from pathlib import Path

import fastrnn

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for the extension

import extension  # noqa: E402

project = "fastrnn"
release = version = fastrnn.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "extension",
]
exclude_patterns = ["static", "tutorials/*.ipynb", "tutorials/*.py", "tutorials/GALLERY_HEADER.rst"]
nitpick_ignore_regex = extension.OF_OTHERS

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"
smartquotes = False  # what is in quotes is code, mostly
highlight_language = "none"  # but for blocks that say theirs

copybutton_exclude = ".linenos, .gp, .go"
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "tutorials",
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": r"/(?!distributed)\w+\.py$",  # these need torchrun and Dask's workers
    "image_scrapers": ("extension.pictures",),
    "reset_argv": "extension.arguments",
    "reset_modules": (),
    "backreferences_dir": None,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 0,
    "write_computation_times": False,
    "show_memory": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "fastrnn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "logo": {"text": "fastrnn"},
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "getting-started": []}
