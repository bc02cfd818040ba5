"""The site: what a study has found, the executed course, the documentation and the reference, as pages for a browser.

Markdown is written for Sphinx, which makes the pages: they need no network, no server and, to be read, no script.
"""

from gcplib.lab.site.build import SiteError, build_site, require_sphinx

__all__ = ["SiteError", "build_site", "require_sphinx"]
