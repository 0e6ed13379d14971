"""The client: REST and gRPC, and many files through either."""
