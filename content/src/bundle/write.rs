//! Writing a bundle.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fs_err as fs;
use mirabelle_manifests::{Bundle, Digest, Entry, Frame, Hasher, Mode, Node};

use super::{ALONE_BYTES, FRAME_BYTES, WINDOW_LOG};
use crate::hash::Hashing;
use crate::tree::{SourceFile, SourceNode};

/// zstd's strongest level within its ordinary windows.
pub const DEFAULT_LEVEL: i32 = 19;

/// How hard to compress, and how much of the machine to take.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// zstd level, 1 to 19. Part of what makes the bytes: the same level gives the same bundle.
    pub level: i32,
    /// Frames compressed at once, each with up to 100 MB at level 19. Does not change the bytes.
    pub jobs: NonZeroUsize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { level: DEFAULT_LEVEL, jobs: NonZeroUsize::MIN }
    }
}

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file is not the one that was scanned.
    #[error("`{0}` changed while it was being packed")]
    Changed(String),
    /// Reading the tree or writing the bundle failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What one frame holds: indices into the scanned files, in tar order.
type FramePlan = Vec<usize>;

/// Writes the tree at `root`, as `files` describe it, to `out`. `progress` hears of every file's bytes once packed.
///
/// Returns the manifest's entries, sorted by path, and the bundle's frames and digest.
pub fn write_bundle(
    root: &Path,
    files: &[SourceFile],
    options: WriteOptions,
    out: &mut fs::File,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<Entry>, Bundle), WriteError> {
    let plans = plan_frames(files);
    // Beside the bundle, where there is room for it; the system's temporary directory may be memory.
    let spools = tempfile::tempdir_in(out.path().parent().unwrap_or(Path::new(".")))?;
    let compressed = compress_frames(root, files, &plans, options, spools.path(), progress)?;

    let mut hasher = Hasher::default();
    let mut frames = Vec::new();
    for (mut spool, length) in compressed {
        spool.rewind()?;
        let size = append(&mut spool, out, &mut hasher)?;
        frames.push(Frame { length, size });
    }
    out.sync_all()?;
    let bundle =
        Bundle { size: frames.iter().map(|frame| frame.size).sum(), frames, sha256: hasher.finish() };
    Ok((entries(files, &plans), bundle))
}

/// Groups files so that what resembles each other is compressed together, and cuts the order into frames.
fn plan_frames(files: &[SourceFile]) -> Vec<FramePlan> {
    let mut skeleton = FramePlan::new();
    // Files of one content stand together, so that the later ones are links to the first within the frame.
    let mut contents: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        match file.node {
            SourceNode::File { sha256, .. } => contents.entry(sha256).or_default().push(index),
            _ => skeleton.push(index),
        }
    }
    let mut groups: Vec<Vec<usize>> = contents.into_values().collect();
    groups.sort_by_key(|group| similarity(files[group[0]].path.as_str()));

    let mut plans = Vec::new();
    if !skeleton.is_empty() {
        plans.push(skeleton);
    }
    let mut current = FramePlan::new();
    let mut length = 0;
    for group in groups {
        let size: u64 = tar_bytes(&files[group[0]]);
        if size > ALONE_BYTES {
            plans.push(group);
            continue;
        }
        if !current.is_empty() && length + size > FRAME_BYTES {
            plans.push(std::mem::take(&mut current));
            length = 0;
        }
        length += size;
        current.extend(group);
    }
    if !current.is_empty() {
        plans.push(current);
    }
    plans.push(FramePlan::new());
    plans
}

/// Files with neighbouring keys resemble each other: the same extension, then the same name, then the same place.
pub(crate) fn similarity(path: &str) -> (String, String, String) {
    let name = path.rsplit('/').next().unwrap_or(path);
    // A version that ends a library's name says nothing about its content: `libx.so.5`.
    let name = name.split_once(".so.").map_or(name, |(stem, _)| stem);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    (extension.to_ascii_lowercase(), name.to_owned(), path.to_owned())
}

fn tar_bytes(file: &SourceFile) -> u64 {
    match file.node {
        SourceNode::File { size, .. } => 512 + size.next_multiple_of(512),
        _ => 512,
    }
}

/// A compressed frame in its spool, and the bytes of tar in it.
type Compressed = (fs::File, u64);

/// Compresses every frame into a spool of its own, `options.jobs` at a time; returns them in order with the bytes of
/// tar in each.
fn compress_frames(
    root: &Path,
    files: &[SourceFile],
    plans: &[FramePlan],
    options: WriteOptions,
    spools: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Compressed>, WriteError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Result<Compressed, WriteError>>> = Mutex::default();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = plans.get(index) else { return };
            let spool = spools.join(index.to_string());
            let result =
                compress_frame(root, files, plan, index + 1 == plans.len(), options.level, &spool, progress);
            let failed = result.is_err();
            if let Ok(mut done) = done.lock() {
                done.insert(index, result);
            }
            if failed {
                next.store(plans.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.get().min(plans.len()) {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().map_err(|_| io::Error::other("a compressing thread panicked"))?;
    done.into_values().collect()
}

fn compress_frame(
    root: &Path,
    files: &[SourceFile],
    plan: &[usize],
    last: bool,
    level: i32,
    spool: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Compressed, WriteError> {
    let file = fs::OpenOptions::new().create(true).truncate(true).read(true).write(true).open(spool)?;
    let mut encoder = zstd::Encoder::new(file, level)?;
    // Frames carry no checksum of their own: every object in them has its digest.
    encoder.include_checksum(false)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.long_distance_matching(true)?;
    if level >= DEFAULT_LEVEL {
        // Half of what the level takes: memory of 32 MB for each frame under way, for next to no bytes.
        encoder.set_parameter(zstd::zstd_safe::CParameter::ChainLog(23))?;
    }
    let length = if last { 1024 } else { tar_length(files, plan) };
    encoder.set_pledged_src_size(Some(length))?;
    let counter = AtomicU64::new(0);
    let mut tar = tar::Builder::new(Counting { inner: encoder, counter: &counter, ended: false });
    let mut first_of: BTreeMap<(Digest, Mode), usize> = BTreeMap::new();
    for &index in plan {
        let file = &files[index];
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mode(0o755);
        let path = file.path.as_str();
        match &file.node {
            SourceNode::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, path, io::empty())?;
            }
            SourceNode::Link { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target)?;
            }
            SourceNode::File { mode, sha256, size } => {
                header.set_mode(mode.bits());
                if let Some(first) = first_of.get(&(*sha256, *mode)) {
                    header.set_entry_type(tar::EntryType::Link);
                    tar.append_link(&mut header, path, files[*first].path.as_str())?;
                } else {
                    first_of.insert((*sha256, *mode), index);
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(*size);
                    let mut content = Hashing::new(fs::File::open(root.join(path))?.take(*size));
                    tar.append_data(&mut header, path, &mut content)?;
                    if content.finish().0 != *sha256 {
                        return Err(WriteError::Changed(path.to_owned()));
                    }
                }
                progress(*size);
            }
        }
    }
    // Only the last frame carries the end of the archive; elsewhere it is swallowed.
    tar.get_mut().ended = !last;
    let encoder = tar.into_inner()?.inner;
    let mut file = encoder.finish()?;
    file.flush()?;
    Ok((file, counter.into_inner()))
}

/// Bytes of tar that an entry comes to in a bundle; `first` of its content within its frame, or a link to it.
pub(crate) fn entry_tar_bytes(entry: &Entry, first: bool) -> u64 {
    let link = match &entry.node {
        Node::Link { target } => target.as_str(),
        _ => "",
    };
    let content = match entry.node {
        Node::File { size, .. } if first => size.next_multiple_of(512),
        _ => 0,
    };
    512 + content + long_name_bytes(entry.path.as_str()) + long_name_bytes(link)
}

/// A GNU long-name record: a header, then the name and a zero byte in whole blocks.
fn long_name_bytes(name: &str) -> u64 {
    if name.len() > 100 { 512 + (name.len() as u64 + 1).next_multiple_of(512) } else { 0 }
}

/// Bytes of tar that a frame's entries come to, long names included: zstd is told before, and holds us to it.
fn tar_length(files: &[SourceFile], plan: &[usize]) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    let mut first_path: BTreeMap<(Digest, Mode), &str> = BTreeMap::new();
    plan.iter()
        .map(|&index| {
            let file = &files[index];
            let path = file.path.as_str();
            let (content, link) = match &file.node {
                SourceNode::File { mode, sha256, size } => {
                    if seen.insert((*sha256, *mode)) {
                        first_path.insert((*sha256, *mode), path);
                        (size.next_multiple_of(512), "")
                    } else {
                        (0, first_path.get(&(*sha256, *mode)).copied().unwrap_or(""))
                    }
                }
                SourceNode::Link { target } => (0, target.as_str()),
                SourceNode::Directory => (0, ""),
            };
            512 + content + long_name_bytes(path) + long_name_bytes(link)
        })
        .sum()
}

fn append(spool: &mut fs::File, out: &mut fs::File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0_u8; 256 << 10];
    let mut size = 0;
    loop {
        match spool.read(&mut buffer)? {
            0 => return Ok(size),
            read => {
                hasher.update(&buffer[..read]);
                out.write_all(&buffer[..read])?;
                size += read as u64;
            }
        }
    }
}

fn entries(files: &[SourceFile], plans: &[FramePlan]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(files.len());
    for (frame, plan) in plans.iter().enumerate() {
        let frame = u32::try_from(frame).unwrap_or(u32::MAX);
        for &index in plan {
            let node = match files[index].node.clone() {
                SourceNode::File { mode, sha256, size } => Node::File { frame, mode, sha256, size },
                SourceNode::Link { target } => Node::Link { target },
                SourceNode::Directory => Node::Directory,
            };
            entries.push(Entry { path: files[index].path.clone(), node });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Counts what goes into a frame, and drops what comes after its end.
struct Counting<'a, W> {
    inner: W,
    counter: &'a AtomicU64,
    ended: bool,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(bytes.len());
        }
        let written = self.inner.write(bytes)?;
        self.counter.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
