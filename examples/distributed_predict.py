"""Predictions by Dask
===================

``fastrnn classify predict`` for a data set in parts, by several worker processes of Dask::

    python distributed_predict.py RUN TEXTS OUT [WORKERS]

TEXTS is a folder of Parquet files with a column "text"; OUT gets a file for each, with its labels.
"""

import sys
import time

import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client, LocalCluster, WorkerPlugin, get_worker

import fastrnn
from fastrnn.text import TextClassifier


class Classifier(WorkerPlugin):
    """Loads a run once in each worker, also in one that joins later; workers share the CPUs."""

    def __init__(self, run):
        self.run = run

    def setup(self, worker):
        fastrnn.set_num_threads(1)
        worker.classifier = TextClassifier.load(self.run)


def predict(texts):
    """The labels (N,) of one partition's texts."""
    return pd.Series(get_worker().classifier.predict(texts), texts.index)


def main(run, texts, out, workers=2):
    options = {"threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(n_workers=int(workers), **options) as cluster, Client(cluster) as client:
        client.register_plugin(Classifier(run))
        data, began = dd.read_parquet(texts), time.perf_counter()
        data["label"] = data["text"].map_partitions(predict, meta=("label", "str"))
        data.to_parquet(out, write_index=False)
        seconds = time.perf_counter() - began
        threads = [*client.run(fastrnn.get_num_threads).values()]
        print(f"{len(data) / seconds:,.0f} texts/s, threads of each worker: {threads}")


if __name__ == "__main__":
    main(*sys.argv[1:])
