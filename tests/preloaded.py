"""Imported by the process that tests.forked forks others from: what programs of this project import when they run."""

import gc
import importlib
import pkgutil

_PACKAGES = ("eventbus", "handlers", "gateway")
_LEFT_OUT = {"__main__", "demo", "embedded", "memory"}

for package in map(importlib.import_module, _PACKAGES):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not _LEFT_OUT & set(found.name.split(".")):
            importlib.import_module(found.name)
gc.freeze()  # the collector lets be what all of them share, and the kernel need not copy it
