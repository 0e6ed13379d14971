"""One record for each request that reaches the server, and what is made of it: metrics, access log and spans."""

from serve.records.records import Records

__all__ = ["Records"]
