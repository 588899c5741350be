# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx' settings for the docsite, after those of `antsibull-docs sphinx-init`. Nothing is asked of a network."""

project = "logfleet.shipper"
copyright = "The logfleet developers"
title = html_title = html_short_title = "logfleet.shipper"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
# Links to headings as GitHub names them.
myst_heading_anchors = 4

default_role = "any"
nitpicky = True
# Labels of Ansible's own documentation, which is not here to be linked to.
nitpick_ignore_regex = [("any", r"ansible\..*"), ("std:ref", r"(?!ansible_collections\.logfleet\.).*")]

highlight_language = "YAML+Jinja"
pygments_style = "ansible"
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "fixed_sidebar": True}
html_show_sphinx = False
html_use_smartypants = False
html_use_index = False
html_copy_source = False
