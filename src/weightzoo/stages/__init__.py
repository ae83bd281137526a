"""The steps from `params.yaml` to a report, one module a step, each a function of a zoo's name and a workspace.

The scripts of `pipelines/` and the verbs of the command line call the same functions. Nothing is re-exported here, so
that a step depends on the code that it needs and no other: DVC re-runs a step when that code changes.
"""
