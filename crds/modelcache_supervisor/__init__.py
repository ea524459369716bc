"""PID 1 of our containers: keeps one worker running."""
