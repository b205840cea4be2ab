"""The HTTP service over a bundle: `headstart serve`.

A request goes through these, outermost first:

    protocol   one connection: its number, its headers and their time, readers that stall
    gate       one request: host, token, load, bytes and time of its body, log and counters
    app        routes and what they answer
    uploads    a body into files, within limits
    decoders   each file in a process that may be killed; the network's square comes back
    batching   squares into batches, answered off the event loop by the bundle's classifier
"""

from headstart.serve.settings import RequestLimits, ServeSettings

__all__ = ["RequestLimits", "ServeSettings"]
