"""Makes a torrent of a directory with a web seed: ``python _bt_torrent.py DIR URL PIECE OUT``."""

import sys
from pathlib import Path

import libtorrent as lt


def main() -> None:
    directory, url, piece_bytes, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    files = lt.file_storage()
    lt.add_files(files, str(directory))
    torrent = lt.create_torrent(files, int(piece_bytes), lt.create_torrent.v1_only)
    torrent.add_url_seed(url)
    lt.set_piece_hashes(torrent, str(directory.parent))
    Path(target).write_bytes(lt.bencode(torrent.generate()))


if __name__ == "__main__":
    main()
