"""Between protobuf and the service's own values: pure functions, both directions, no rules.

Requests are translated after `validate` has accepted them, so nothing here can fail.
"""
