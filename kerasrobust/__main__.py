"""The command line, as `python -m kerasrobust`: the same as `python -m kerasrobust.run`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("kerasrobust.run", run_name="__main__")
