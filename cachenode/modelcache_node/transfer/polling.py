"""epoll, and who waits for which descriptor."""

import select


class Poller:
    """See the module. One interest per descriptor; an error or a hang-up counts as either."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, object] = {}

    def watch(self, fd: int, owner: object, *, for_write: bool) -> None:
        events = select.EPOLLOUT if for_write else select.EPOLLIN
        if fd in self._owners:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._owners[fd] = owner

    def forget(self, fd: int) -> None:
        if self._owners.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def poll(self, timeout_s: float) -> list[object]:
        return [self._owners[fd] for fd, _ in self._epoll.poll(timeout_s)]
