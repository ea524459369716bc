"""One BitTorrent client with a web seed. Runs in the environment that has libtorrent.

``python _bt_client.py TORRENT TARGET ADDRESS SLOTS PEER…`` waits for a line on standard input,
fetches, says when it is done (monotonic seconds), and seeds until standard input ends.
"""

import sys
import threading
import time

import libtorrent as lt

PORT = 6881


def main() -> None:
    torrent, target, address, slots, *peers = sys.argv[1:]
    session = lt.session({
        "listen_interfaces": f"{address}:{PORT}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "unchoke_slots_limit": int(slots),
        "connections_limit": 200,
        "alert_mask": lt.alert.category_t.status_notification,
        # The laboratory's links are one TCP hop: uTP's caution costs it more than it gains.
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "mixed_mode_algorithm": 0,
    })  # fmt: skip
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(torrent)
    wanted.save_path = target
    print("ready", flush=True)
    sys.stdin.readline()
    handle = session.add_torrent(wanted)
    for peer in peers:
        handle.connect_peer((peer, PORT))
    while not handle.status().is_seeding:
        session.wait_for_alert(50)
        session.pop_alerts()
    print(time.monotonic(), flush=True)
    seeding = threading.Thread(target=sys.stdin.read)
    seeding.start()
    seeding.join()


if __name__ == "__main__":
    main()
