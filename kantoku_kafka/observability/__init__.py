"""What an executor shows of itself: metrics, health, traces, logs. Nothing below the command line imports it."""
