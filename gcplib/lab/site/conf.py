"""What Sphinx is told about the site; the command that builds it adds the title and, for the reference, extensions."""

project = "gcplib"
copyright = author = "the gcplib developers"
language = "en"
smartquotes_action = "D"  # quotation marks are shown as they are typed
extensions = ["myst_parser", "gcplib.lab.site.formulas"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_dmath_allow_labels = False
myst_dmath_double_inline = True
myst_heading_anchors = 6
# What is plain text on a code host is so here.
myst_disable_syntax = ["myst_block_break", "myst_line_comment", "myst_target"]
# A notebook may leave out a level of headings, and a cell be for a shell.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]

# What scikit-learn adds to its estimators, with links to its own pages.
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
add_module_names = False
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
# Colors of verdicts and states, each at least 4.5 : 1 on its ground.
html_theme_options = {
    "light_css_variables": {"holds": "#1b7a3d", "partly": "#8a5a00", "fails": "#b3261e"},
    "dark_css_variables": {"holds": "#5cc98a", "partly": "#e2b04a", "fails": "#f2857c"},
}
