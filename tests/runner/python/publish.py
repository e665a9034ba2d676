"""python-tuf publishes a repository into DIRECTORY, with what ours do not have: other keys, bins, other digests.

root 2 of 3: ed25519, ecdsa, rsa; its second version exchanges the rsa key
  timestamp ecdsa, snapshot rsa, targets ed25519
    targets ── signed   signed/*   rsa and ecdsa, both
            └─ binned   bins/*     ── sixteen bins (TAP 15), ecdsa

Below targets/, TARGETS.txt names every target.
"""

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

directory = Path(sys.argv[1])
expires = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)

ed25519 = CryptoSigner.generate_ed25519
ecdsa = CryptoSigner.generate_ecdsa
rsa = CryptoSigner.generate_rsa

roots = [ed25519(), ecdsa(), rsa()]
timestamp_key, snapshot_key, targets_key, bins_key = ecdsa(), rsa(), ed25519(), ecdsa()
signed_keys = [rsa(), ecdsa()]
binned_key = ed25519()


def write(name, signed, signers):
    """Signs a document and writes it; returns what the role above says of it."""
    document = Metadata(signed)
    for signer in signers:
        document.sign(signer, append=True)
    data = document.to_bytes(JSONSerializer())
    (directory / "metadata" / name).write_bytes(data)
    return MetaFile.from_data(signed.version, data, ["sha256", "sha512"])


names = []


def target(role, name, data, hashes):
    """Lists a target, and puts it under each of its hashed names."""
    info = TargetFile.from_data(name, data, hashes)
    role.targets[name] = info
    names.append(name)
    folder, _, last = name.rpartition("/")
    for digest in info.hashes.values():
        path = directory / "targets" / folder / f"{digest}.{last}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


for made in ("metadata", "targets"):
    (directory / made).mkdir(parents=True)

meta = {}
targets = Targets(expires=expires)
target(targets, "both.txt", b"both", ["sha256", "sha512"])
target(targets, "sha512.txt", b"sha512 alone", ["sha512"])
target(targets, "deep/er/file.bin", bytes(range(256)) * 4000, ["sha256"])
target(targets, "empty", b"", ["sha256"])

signed = Targets(expires=expires)
target(signed, "signed/twice.txt", b"by an rsa key and a P-256 one", ["sha512"])
meta["signed.json"] = write("1.signed.json", signed, signed_keys)

succinct = SuccinctRoles([bins_key.public_key.keyid], 1, 4, "bin")
bins = {name: Targets(expires=expires) for name in succinct.get_roles()}
for number in range(40):
    name = f"bins/{number}"
    target(bins[succinct.get_role_for_target(name)], name, f"in a bin: {number}".encode(), ["sha256"])
for name, role in bins.items():
    meta[f"{name}.json"] = write(f"1.{name}.json", role, [bins_key])

binned = Targets(
    expires=expires,
    delegations=Delegations({bins_key.public_key.keyid: bins_key.public_key}, succinct_roles=succinct),
)
meta["binned.json"] = write("1.binned.json", binned, [binned_key])

keys = {signer.public_key.keyid: signer.public_key for signer in [*signed_keys, binned_key]}
targets.delegations = Delegations(
    keys,
    roles={
        "signed": DelegatedRole("signed", [s.public_key.keyid for s in signed_keys], 2, True, ["signed/*"]),
        "binned": DelegatedRole("binned", [binned_key.public_key.keyid], 1, True, ["bins/*"]),
    },
)
meta["targets.json"] = write("1.targets.json", targets, [targets_key])
snapshot_meta = write("1.snapshot.json", Snapshot(expires=expires, meta=meta), [snapshot_key])
write("timestamp.json", Timestamp(expires=expires, snapshot_meta=snapshot_meta), [timestamp_key])

root = Root(expires=expires, consistent_snapshot=True)
for signer in roots:
    root.add_key(signer.public_key, "root")
root.roles["root"].threshold = 2
root.add_key(timestamp_key.public_key, "timestamp")
root.add_key(snapshot_key.public_key, "snapshot")
root.add_key(targets_key.public_key, "targets")
write("1.root.json", root, roots)
root.version = 2
root.revoke_key(roots[2].public_key.keyid, "root")
roots[2] = rsa()
root.add_key(roots[2].public_key, "root")
write("2.root.json", root, [roots[0], roots[1], roots[2]])

(directory / "targets" / "TARGETS.txt").write_text("\n".join(names))
