"""Threads that go on until they are told to stop."""

import threading


class Workers:
    """`count` threads, which each run work(number) of the class that derives from this; it looks at is_over() between one thing and the
    next, or waits in pause()."""

    def __init__(self, count=1, join_s=None):
        self._over, self._join_s = threading.Event(), join_s  # None: each is waited for until it ends.
        self._threads = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(count)]

    def work(self, number):
        raise NotImplementedError

    def is_over(self):
        return self._over.is_set()

    def pause(self, seconds):
        """Whether it is over."""
        return self._over.wait(seconds)

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join(self._join_s)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
