"""Where task functions run: implementations of the Executor protocol."""
