"""Settings of the docs site, which ``make docs`` builds from the pages of this folder as they stand on GitHub."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / '_sphinx'))
os.environ.setdefault('OMP_NUM_THREADS', '1')

from omh_mmseg.version import __version__  # noqa: E402

project = 'omh_mmseg'
author = 'the authors of omh_mmseg'
release = version = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'github_pages']
exclude_patterns = ['_build', '_sphinx']
# Anchors and links are GitHub's: github_pages.py makes the anchors, check_links.py looks at every link of the result.
myst_heading_anchors = 4
suppress_warnings = ['myst.xref_missing', 'myst.header']

napoleon_use_ivar = True  # fields of dataclasses are documented as such already
default_role = 'py:obj'
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_inherit_docstrings = False
autodoc_typehints_format = 'short'
autodoc_class_signature = 'mixed'
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = 'furo'
html_title = f'omh_mmseg {__version__}'
html_copy_source = False
html_show_sphinx = False
html_static_path = ['_sphinx/static']
html_css_files = ['site.css']
html_theme_options = {
    'source_repository': 'https://github.com/omh-mmseg/omh_mmseg/',
    'source_branch': 'main',
    'source_directory': 'docs/',
}
pygments_style = 'friendly'
pygments_dark_style = 'native'

if 'OMH_DOCS_PAGES' in os.environ:
    exclude_patterns += ['api/omh_mmseg*']
else:
    from api_pages import write_pages

    write_pages(Path(__file__).resolve().parent / 'api')
