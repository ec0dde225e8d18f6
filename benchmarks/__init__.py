"""The races: cases.py what is run, worker.py one peer in its own process, race.py the rounds,
report.py table, JSON and pictures, hdf5_memory.py the lazily read features.

Installed as fastrnn.benchmarks, so that `fastrnn bench` finds them.
"""
