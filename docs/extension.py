"""What Sphinx needs for this site beside its own extensions: formulas without a network, docstrings
in prose, pictures of the tutorials, and a check that the reference has every public name."""

import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math import latex2mathml
from sphinx.util import logging

PUBLIC = (
    *("fastrnn", "fastrnn.captioning", "fastrnn.nn", "fastrnn.text", "fastrnn.torch"),
    *("fastrnn.vision.style", "fastrnn.vision.transfer"),
)
# Types of other packages stand in signatures; their documentation is elsewhere.
OF_OTHERS = [(r"py:.*", r"(?!fastrnn\.).*")]

log = logging.getLogger(__name__)


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, _leave), (_display, _leave))
    app.connect("autodoc-process-docstring", docstring)
    app.connect("sphinx-click-process-description", help_text)
    app.connect("html-page-context", finished)
    app.connect("env-check-consistency", every_public_name_is_documented)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ---- formulas: MathML, which browsers draw themselves --------------------------------------------


def _mathml(self, node, as_block):
    tree = latex2mathml.tex2mathml(node.astext(), as_block=as_block)
    self.body.append(tree if isinstance(tree, str) else tree.toxml())


def _inline(self, node):
    _mathml(self, node, as_block=False)
    raise SkipNode


def _display(self, node):
    self.body.append('<div class="formula" tabindex="0">')
    _mathml(self, node, as_block=True)
    self.body.append("</div>")
    raise SkipNode


def _leave(self, node):
    pass


# ---- docstrings ----------------------------------------------------------------------------------


HEADS = re.compile(r"(Inputs?(?=:)|Returns?(?=:)|Yields(?=:)|Raises(?= )|config(?=:))")
ENTRY = re.compile(r"(\w+) {2,}(?=\S)")  # of a table: a name, blanks, and what it means


def escaped(line):
    return re.sub(r"([\\*_`|])", r"\\\1", line)


def docstring(app, what, name, obj, options, lines):
    """Docstrings are prose, in which * and _ stand for themselves. What goes in, what comes out and
    what is raised are paragraphs of their own, and so are lists; a table is a list of terms."""
    marked, indented = [""], False
    for line in lines:
        goes_on = indented and line.startswith("  ")
        if entry := ENTRY.match(line):
            marked += ["", f"``{entry[1]}``", f"    {escaped(line[entry.end() :])}"]
        elif goes_on:
            marked.append(
                "  " * (2 if marked[-1].startswith("    ") else 1) + escaped(line.strip())
            )
        else:
            if indented or line.startswith("- ") or HEADS.match(line):
                marked.append("")
            marked.append(HEADS.sub(r"**\1**", escaped(line)))
        indented = bool(entry or goes_on or line.startswith("- "))
    lines[:] = marked[1:]


def help_text(app, ctx, lines):
    """sphinx-click takes help for markup, and examples for a block of lines."""
    marked = []
    for line in lines:
        if not line.startswith("| "):
            marked.append(escaped(line))
        elif line.endswith(":"):
            marked += [escaped(line[2:]) + ":", ""]
        else:
            marked.append(f"    {line[2:].strip()}")
    lines[:] = marked


# ---- pages ---------------------------------------------------------------------------------------


PICTURE = re.compile(r'<img [^>]*src="([^"]*_images/[^"]*(?<!_thumb)\.png)"[^>]*>')


def finished(app, page, template, context, doctree):
    """A picture is a link to itself, so that a telephone can enlarge it. A table's corner without a
    name is no heading, which a screen reader would announce. A part of a source ends with code."""
    body = context.get("body", "").replace('<th class="head"><p></p></th>', "<td></td>")
    body = re.sub(r"\n+</pre>", "\n</pre>", body)
    context["body"] = PICTURE.sub(r'<a href="\1">\g<0></a>', body)


# ---- tutorials -----------------------------------------------------------------------------------


DRAWN = Path(tempfile.gettempdir()) / f"fastrnn-tutorials-{os.getpid()}"


def arguments(gallery_conf, script_vars):
    """What sphinx-gallery gives a script: the folder to draw into, which is made anew."""
    shutil.rmtree(DRAWN, ignore_errors=True)
    DRAWN.mkdir()
    return [str(DRAWN)]


def pictures(block, block_vars, gallery_conf):
    """sphinx-gallery's scraper: what a script has drawn into its folder."""
    from sphinx_gallery.scrapers import figure_rst

    title = block_vars["example_globals"]["__doc__"].partition("\n")[0]
    taken = []
    for drawn in sorted(DRAWN.glob("*.png")):
        path = next(block_vars["image_path_iterator"])
        shutil.move(drawn, path)
        taken.append(path)
    return figure_rst(taken, gallery_conf["src_dir"], title)


# ---- the reference -------------------------------------------------------------------------------


def every_public_name_is_documented(app, env):
    documented = env.domains["py"].objects
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            if f"{module.__name__}.{name}" not in documented:
                log.warning("the reference has not %s.%s", module.__name__, name)
