"""epoll, and who waits for which descriptor."""

import select


class Poller:
    """See the module. One interest per descriptor; an error or a hang-up counts as either."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[object, int]] = {}
        self._paused: set[int] = set()

    def watch(self, fd: int, owner: object, *, for_write: bool) -> None:
        """Cheap where nothing changes."""
        wish = (owner, select.EPOLLOUT if for_write else select.EPOLLIN)
        known = self._waiting.get(fd)
        if known == wish:
            return
        if known is None:
            self._epoll.register(fd, wish[1])
        elif fd not in self._paused:
            self._epoll.modify(fd, wish[1])
        self._waiting[fd] = wish

    def pause(self, fd: int) -> None:
        """Hear nothing of a descriptor but errors and hang-ups, until it is resumed."""
        if fd in self._waiting and fd not in self._paused:
            self._paused.add(fd)
            self._epoll.modify(fd, 0)

    def resume(self) -> None:
        """Hear of all descriptors again."""
        for fd in self._paused:
            self._epoll.modify(fd, self._waiting[fd][1])
        self._paused.clear()

    def forget(self, fd: int) -> None:
        if self._waiting.pop(fd, None) is not None:
            self._paused.discard(fd)
            self._epoll.unregister(fd)

    def poll(self, timeout_s: float) -> list[object]:
        return [self._waiting[fd][0] for fd, _ in self._epoll.poll(timeout_s)]
