"""Films, cameras and streams: decode, answer, track, draw and write, each in its own thread (docs/live.md)."""
