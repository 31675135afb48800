"""The same durable work in other servers; they run in a virtual environment of their own."""
