"""The server's log: what the supervisor says, and what the JVM and its workers print."""
