"""Training on a Ray cluster: `pip install weightzoo[ray]`.

Ray runs the tasks; which members go where is decided here, by measured speed:

    sizing     nodes, their speed, and how many members each is given next (no Ray: the simulation uses it too)
    tasks      what runs on a node: looking around, training, recording
    jobs       a shard as seen from the driver: tasks that relay their epochs, or that record their runs themselves
    executor   the loop that gives work to nodes and takes results, whatever dies meanwhile
    connection the way to a cluster

Either of two processes records. If every node reaches the tracking store and the artifacts, the tasks write their runs
and the driver ends them; a run that the driver did not end counts for nothing, so that of several attempts at a shard
one counts. Otherwise the tasks send their epochs to the driver, which records them as if it had trained them.
"""
