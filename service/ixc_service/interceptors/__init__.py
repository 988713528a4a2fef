"""What wraps every handler, outermost first: access log, errors, drain gate, decoding.

Each is one function around a behaviour; `wrapping.py` knows gRPC's four shapes of handlers.
"""
