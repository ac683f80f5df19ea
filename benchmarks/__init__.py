"""Timings of ssl_zoo, alone and beside other libraries, on the machine where they are run: ``ssl-zoo bench``.

Each file holds functions that measure and, at its end, the list of its rows. Shipped as ``ssl_zoo.benchmarks``.
"""
