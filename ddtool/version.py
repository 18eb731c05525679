"""The version, in the one place that everything else reads."""

ADDRESS = ""
"""Where the source is, as https://HOST/NAME: cards then say how to install ddtool from there, and cite it. Empty: nowhere yet."""

__version__ = "0.1.0"
