"""umlab: the host side of User Mode Linux.

This package imports nothing by itself, so that the small programs (``uml_mconsole``) start fast.
"""

__version__ = "0.1.0"
