"""python-tuf reads a repository: ROOT METADATA-URL TARGETS-URL DIRECTORY TARGET…; prints where each target is."""

import sys
from pathlib import Path

from tuf.ngclient import Updater

root, metadata_url, targets_url, directory, *names = sys.argv[1:]
metadata, targets = Path(directory, "metadata"), Path(directory, "targets")
for made in (metadata, targets):
    made.mkdir(parents=True)

updater = Updater(
    metadata_dir=str(metadata),
    metadata_base_url=metadata_url,
    target_dir=str(targets),
    target_base_url=targets_url,
    bootstrap=Path(root).read_bytes(),
)
updater.refresh()
for name in names:
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit(f"{name} is not listed")
    print(updater.download_target(info))
