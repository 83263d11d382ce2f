"""Players: everything with ``act(frame, info)``."""
