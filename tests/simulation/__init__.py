"""The engine in a world where time, threads, transactions and misfortune all come from one seed."""
