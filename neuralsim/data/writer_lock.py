"""One writer at a time: a lock on a dataset that goes when its process goes, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from neuralsim.data.episodes import EpisodeStore


@contextlib.contextmanager
def only_writer(store: EpisodeStore) -> Iterator[None]:
    """Keeps a second recording or import out of the same folder.

    Raises:
        ValueError: If another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows: two writers there are the user's own care
        yield
        return
    with (store.path / ".recording").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is writing into {store.path}; wait for it, or choose another --out") \
                from None  # fmt: skip
        yield
