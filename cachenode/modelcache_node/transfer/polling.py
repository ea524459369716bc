"""epoll, and who waits for which descriptor."""

import select


class Poller:
    """See the module. One interest per descriptor; an error or a hang-up counts as either."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[object, int]] = {}

    def watch(self, fd: int, owner: object, *, for_write: bool) -> None:
        """Cheap where nothing changes."""
        wish = (owner, select.EPOLLOUT if for_write else select.EPOLLIN)
        known = self._waiting.get(fd)
        if known == wish:
            return
        if known is None:
            self._epoll.register(fd, wish[1])
        else:
            self._epoll.modify(fd, wish[1])
        self._waiting[fd] = wish

    def forget(self, fd: int) -> None:
        if self._waiting.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def poll(self, timeout_s: float) -> list[object]:
        return [self._waiting[fd][0] for fd, _ in self._epoll.poll(timeout_s)]
