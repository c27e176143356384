"""The router of a host: carries the queue pairs of its containers to other hosts (docs/wire.md).

`ffverbs-router` starts it. The control plane is here: questions of containers, connections to other routers, the map of
who is where; the data plane is C (native/wire).
"""
