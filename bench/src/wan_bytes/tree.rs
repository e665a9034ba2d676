//! A release's tree as every tool is given it: the same files, as a directory and as a deterministic tar.

use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::{SourceFile, SourceNode, scan_tree};
use mirabelle_manifests::{Digest, Mode};

/// A tree that was read.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// Sorted by path.
    pub(super) files: Vec<SourceFile>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Self {
        let files =
            scan_tree(root, &mut |_| {}).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        Self { root: root.to_owned(), files }
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files
            .iter()
            .map(|file| if let SourceNode::File { size, .. } = file.node { size } else { 0 })
            .sum()
    }

    /// A digest of all that is in it.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(format!("{:?}", self.files).as_bytes())
    }

    /// Writes those of its files that `which` names: sorted by path, of no time and no owner.
    pub(super) fn write_tar(&self, out: &Path, which: &dyn Fn(&SourceFile) -> bool) {
        let mut archive = tar::Builder::new(std::io::BufWriter::new(fs::File::create(out).unwrap()));
        for file in self.files.iter().filter(|file| which(file)) {
            let path = file.path.as_str();
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            header.set_mode(0o755);
            match &file.node {
                SourceNode::File { mode, size, .. } => {
                    header.set_size(*size);
                    header.set_mode(if *mode == Mode::Executable { 0o755 } else { 0o644 });
                    let content = fs::File::open(self.root.join(path)).unwrap();
                    archive.append_data(&mut header, path, content).unwrap();
                }
                SourceNode::Link { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    archive.append_link(&mut header, path, target).unwrap();
                }
                SourceNode::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, path, std::io::empty()).unwrap();
                }
            }
        }
        archive.into_inner().unwrap().into_inner().unwrap();
    }
}

/// The digest of a file that was written.
pub(super) fn digest_of(path: &Path) -> Option<Digest> {
    mirabelle_content::digest(&mut fs::File::open(path).ok()?).ok().map(|(digest, _)| digest)
}

/// Bytes of the files below a directory.
pub(super) fn bytes_below(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => bytes_below(&entry.path()),
            metadata => metadata.len(),
        })
        .sum()
}
