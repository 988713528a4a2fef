"""One class for each service of the contract.

Every handler makes the same four moves: check the request, translate it, call, translate back.
None of them catches anything: `interceptors/errors.py` turns faults into statuses.
"""
