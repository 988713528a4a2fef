"""Long work as operations: written down before anybody hears of it, followed, stopped, taken up.

    records.py     the values: what was asked for, where it stands, what happened
    log.py         the numbered events of one operation, on disk before they are told
    work.py        what an operation runs: a job's process, or a model's start
    operation.py   one operation that is not done: its log, its work, its end
    queue.py       all of them: exactly once, one job at a time, over a restart of the server
    streams.py     operations as gRPC streams

The store is `ixc_service.store.operations`.
"""
