"""What the experiments of all papers share: steps, chains, their schedule, and the arithmetic of tables.

The scripts beside this folder run from a checkout, so each appends the folder above its own to `sys.path` first.
"""
