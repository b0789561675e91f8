"""Times the engine beside other runtimes, which get the same network in their own files."""
