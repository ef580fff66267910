"""Modules of this folder that no test imports: they need Sphinx, or are programs that run when imported."""

collect_ignore = ["conf.py", "sphinxext/mathml.py"]
collect_ignore_glob = ["gallery/*", "auto_gallery/*", "_build/*"]
