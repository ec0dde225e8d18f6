"""fastrnn against its peers on this machine, each in its own process.

cases.py, operands.py, texts.py, models.py: what is raced; peers/: how each peer runs it;
process.py, worker.py, memory.py: a peer in its own process; race.py: the rounds; results.py: what
the rows say; tables.py, report.py, charts.py, page.py: how it is shown; guard.py: two runs
compared. hdf5_memory.py stands alone.

Installed as fastrnn.benchmarks, so that `fastrnn bench` finds them.
"""
