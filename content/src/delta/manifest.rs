//! The new manifest as a difference from the old one.
//!
//! Entries are coded in order against those of the old release, which are in the same order; of a new object only the
//! size is coded. Its digest is what comes out when the object has been rebuilt: 32 bytes that need not travel for every
//! changed file. The frame of an entry, and the length of a frame, are predicted by what the bundle writer does.
//!
//! Until the objects are there, a stand-in takes the place of each unknown digest.
//!
//! Threats: what is decoded here was signed by nobody. Counts and texts are bounded by the signed length of the
//! manifest they belong to, the sizes by the signed size of the release; in the end the manifest's digest decides.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_manifests::{Digest, Entry, Frame, Mode, Node};

use super::DeltaError;
use super::coder::{Bit, Coder, MixedByte, Number, Tree};
use crate::bundle::entry_tar_bytes;

/// No entry takes fewer bytes of a manifest.
const SMALLEST_ENTRY: u64 = 24;

/// What stands for the digest of new object `number` until it is known.
pub(super) fn stand_in(number: usize) -> Digest {
    Digest::of(format!("new object {number}").as_bytes())
}

/// The lists of a manifest, with stand-ins for new objects.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// The entries.
    pub(super) entries: Vec<Entry>,
    /// The bundle's frames.
    pub(super) frames: Vec<Frame>,
    /// The sizes of the new objects, by number.
    pub(super) new_objects: Vec<u64>,
}

/// What the lists of a manifest may come to.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of the manifest.
    pub(super) manifest: u64,
    /// Bytes of all files.
    pub(super) installed: u64,
}

struct Models {
    numbers: Vec<Number>,
    modes: [Bit; 2],
    hits: [Bit; 8],
    matched: [Tree<2>; 3],
    nodes: [Tree<2>; 4],
    contents: [Tree<2>; 4],
    text: MixedByte<3>,
    /// Bytes of text that may still come.
    left: u64,
}

/// Which number a model is for.
#[derive(Clone, Copy)]
enum What {
    Count,
    Skipped,
    Shared,
    Text,
    Size,
    SizeChange,
    Base,
    Repeated,
    Frame,
    FrameLength,
    FrameSize,
    FrameSizeChange,
}

/// How an entry is found: the next one of the base, one after it, or none.
const NEXT: u32 = 0;
const LATER: u32 = 1;
const NEW: u32 = 2;
/// What a file holds: what the base's entry holds, a new object, one of the new objects before, any object of the base.
const SAME: u32 = 0;
const FRESH: u32 = 1;
const REPEATED: u32 = 2;
const MOVED: u32 = 3;

impl Models {
    fn new(limits: Limits) -> Self {
        Self {
            numbers: (0..12).map(|_| Number::new()).collect(),
            modes: Default::default(),
            hits: Default::default(),
            matched: Default::default(),
            nodes: Default::default(),
            contents: Default::default(),
            text: MixedByte::new(1, 16),
            left: limits.manifest,
        }
    }

    fn number<C: Coder>(&mut self, coder: &mut C, what: What, value: u64) -> u64 {
        self.numbers[what as usize].code(coder, value)
    }

    fn signed<C: Coder>(&mut self, coder: &mut C, what: What, value: i64) -> i64 {
        self.numbers[what as usize].signed(coder, value)
    }

    /// A number that is mostly as predicted.
    fn predicted<C: Coder>(&mut self, coder: &mut C, hit: usize, what: What, guess: u64, value: u64) -> u64 {
        if coder.bit(&mut self.hits[hit], value == guess) {
            return guess;
        }
        let change = self.signed(coder, what, value.wrapping_sub(guess).cast_signed());
        guess.wrapping_add_signed(change)
    }

    /// A text that begins like `like`.
    fn text<C: Coder>(&mut self, coder: &mut C, like: &str, value: &str) -> Result<String, DeltaError> {
        let shared = like.bytes().zip(value.bytes()).take_while(|(a, b)| a == b).count();
        let shared = self.number(coder, What::Shared, shared as u64);
        let kept = usize::try_from(shared).ok().and_then(|shared| like.as_bytes().get(..shared));
        let kept = kept.ok_or(DeltaError::Malformed("a path shares more than there is"))?;
        let rest = value.as_bytes().get(kept.len()..).unwrap_or_default();
        let length = self.number(coder, What::Text, rest.len() as u64);
        self.left = (self.left.checked_sub(shared.saturating_add(length)))
            .ok_or(DeltaError::Malformed("its paths are longer than the manifest"))?;
        let mut text = kept.to_vec();
        for at in 0..usize::try_from(length).unwrap_or(0) {
            let before = |back: usize| text.len().checked_sub(back).map_or(0, |at| u64::from(text[at]));
            let two = before(1) | before(2) << 8;
            let three = two | before(3) << 16;
            let contexts = [before(1), two, three];
            text.push(self.text.code(coder, contexts, 0, rest.get(at).copied().unwrap_or(0)));
        }
        String::from_utf8(text).map_err(|_| DeltaError::Malformed("a path is not text"))
    }
}

/// Codes the lists of a manifest against the entries of `base`. An encoder gives them, with stand-ins for the objects
/// that it chose to make new; a decoder gives none.
pub(super) fn code_lists<C: Coder>(
    coder: &mut C,
    base: (&[Entry], &[Frame]),
    given: Option<&Lists>,
    limits: Limits,
) -> Result<Lists, DeltaError> {
    let mut models = Models::new(limits);
    let given_entries = given.map_or(&[][..], |lists| &lists.entries);
    let count = models.number(coder, What::Count, given_entries.len() as u64);
    if count > limits.manifest / SMALLEST_ENTRY {
        return Err(DeltaError::Malformed("it has more entries than the manifest has room for"));
    }
    let mut coding = Coding {
        base: base.0,
        next: 0,
        last_match: NEXT,
        moved: 0,
        places: if given.is_some() { places(base.0) } else { BTreeMap::new() },
        lists: Lists::default(),
        numbers: BTreeMap::new(),
        frames_of_base: BTreeMap::new(),
        frames_of_extension: BTreeMap::new(),
        frame_of: BTreeMap::new(),
        installed: limits.installed,
    };
    for index in 0..usize::try_from(count).unwrap_or(0) {
        coding.entry(coder, &mut models, given_entries.get(index))?;
    }
    let given_frames = given.map_or(&[][..], |lists| &lists.frames);
    coding.frames(coder, &mut models, base.1, given_frames, limits)?;
    Ok(coding.lists)
}

/// Where each object first stands.
fn places(entries: &[Entry]) -> BTreeMap<Digest, u64> {
    let mut places = BTreeMap::new();
    for (place, entry) in (0..).zip(entries) {
        if let Node::File { sha256, .. } = entry.node {
            places.entry(sha256).or_insert(place);
        }
    }
    places
}

/// The state of coding entries.
struct Coding<'a> {
    base: &'a [Entry],
    /// The next entry of the base that was not passed.
    next: usize,
    last_match: u32,
    /// Where in the base the last moved object was found.
    moved: u64,
    /// Where the base has its objects first, for an encoder.
    places: BTreeMap<Digest, u64>,
    lists: Lists,
    /// The new objects so far.
    numbers: BTreeMap<Digest, usize>,
    /// Where frames of the base went.
    frames_of_base: BTreeMap<u32, u32>,
    frames_of_extension: BTreeMap<String, u32>,
    frame_of: BTreeMap<Digest, u32>,
    /// Bytes of files that may still come.
    installed: u64,
}

impl Coding<'_> {
    fn entry<C: Coder>(
        &mut self,
        coder: &mut C,
        models: &mut Models,
        given: Option<&Entry>,
    ) -> Result<(), DeltaError> {
        // Which entry of the base has this path.
        let found = given.and_then(|entry| {
            let after = self.base.get(self.next..).unwrap_or_default();
            after.binary_search_by(|known| known.path.cmp(&entry.path)).ok()
        });
        let matched = match (given, found) {
            (_, Some(0)) => NEXT,
            (_, Some(_)) => LATER,
            _ => NEW,
        };
        let matched = models.matched[self.last_match as usize].code(coder, matched);
        self.last_match = matched.min(NEW);
        let mut known = None;
        if matched < NEW {
            if matched == LATER {
                let skipped = found.map_or(0, |found| found as u64 - 1);
                let skipped = models.number(coder, What::Skipped, skipped).saturating_add(1);
                self.next = self.next.saturating_add(usize::try_from(skipped).unwrap_or(usize::MAX));
            }
            let entry = self.base.get(self.next);
            known = Some(entry.ok_or(DeltaError::Malformed("it names an entry that is not there"))?);
            self.next += 1;
        }
        let path = if let Some(known) = known {
            known.path.clone()
        } else {
            let last = self.lists.entries.last().map_or("", |entry| entry.path.as_str());
            let text = models.text(coder, last, given.map_or("", |entry| entry.path.as_str()))?;
            text.parse().map_err(|_| DeltaError::Malformed("a path is not safe"))?
        };
        let node = self.node(coder, models, known, path.as_str(), given.map(|entry| &entry.node))?;
        self.lists.entries.push(Entry { path, node });
        Ok(())
    }

    fn node<C: Coder>(
        &mut self,
        coder: &mut C,
        models: &mut Models,
        known: Option<&Entry>,
        path: &str,
        given: Option<&Node>,
    ) -> Result<Node, DeltaError> {
        let kind = |node: &Node| match node {
            Node::File { .. } => 0,
            Node::Link { .. } => 1,
            Node::Directory => 2,
        };
        let known = known.map(|entry| &entry.node);
        let context = known.map_or(3, kind);
        match models.nodes[context as usize].code(coder, given.map_or(0, kind)) {
            0 => self.file(coder, models, known, path, given),
            1 => {
                let like = match known {
                    Some(Node::Link { target }) => target.as_str(),
                    _ => "",
                };
                let target = match given {
                    Some(Node::Link { target }) => target.as_str(),
                    _ => "",
                };
                Ok(Node::Link { target: models.text(coder, like, target)? })
            }
            2 => Ok(Node::Directory),
            _ => Err(DeltaError::Malformed("an entry is of no known type")),
        }
    }

    fn file<C: Coder>(
        &mut self,
        coder: &mut C,
        models: &mut Models,
        known: Option<&Node>,
        path: &str,
        given: Option<&Node>,
    ) -> Result<Node, DeltaError> {
        let known = match known {
            Some(Node::File { frame, mode, sha256, size }) => Some((*frame, *mode, *sha256, *size)),
            _ => None,
        };
        let (given_frame, given_mode, given_object, given_size) = match given {
            Some(Node::File { frame, mode, sha256, size }) => (*frame, *mode, Some(*sha256), *size),
            _ => (0, Mode::Regular, None, 0),
        };
        let context = known.is_some_and(|(_, mode, ..)| mode == Mode::Executable);
        let executable = coder.bit(&mut models.modes[usize::from(context)], given_mode == Mode::Executable);
        let mode = if executable { Mode::Executable } else { Mode::Regular };

        // What it holds.
        let repeated = given_object.and_then(|object| self.numbers.get(&object).copied());
        let fresh = given_object == Some(stand_in(self.lists.new_objects.len()));
        let (content, moved) = match (given_object, known) {
            (Some(object), Some((_, _, same, _))) if object == same => (SAME, None),
            _ if fresh => (FRESH, None),
            _ if repeated.is_some() => (REPEATED, None),
            (object, _) => (MOVED, object.and_then(|object| self.places.get(&object).copied())),
        };
        let context = usize::from(known.is_none()) + 2 * usize::from(self.last_match != NEXT);
        let content = models.contents[context].code(coder, content);
        let (object, size) = match (content, known) {
            (SAME, Some((_, _, object, size))) => (object, size),
            (FRESH, known) => {
                let size = match known {
                    Some((.., size)) => {
                        let change = given_size.wrapping_sub(size).cast_signed();
                        size.wrapping_add_signed(models.signed(coder, What::SizeChange, change))
                    }
                    None => models.number(coder, What::Size, given_size),
                };
                let number = self.lists.new_objects.len();
                self.lists.new_objects.push(size);
                self.numbers.insert(stand_in(number), number);
                (stand_in(number), size)
            }
            (REPEATED, _) => {
                let count = self.lists.new_objects.len();
                let back = repeated.map_or(0, |number| (count - 1 - number) as u64);
                let back = models.number(coder, What::Repeated, back);
                let number = usize::try_from(back).ok().and_then(|back| count.checked_sub(back + 1));
                let number = number.ok_or(DeltaError::Malformed("it names an object that is not there"))?;
                (stand_in(number), self.lists.new_objects[number])
            }
            (MOVED, _) => {
                let change = moved.unwrap_or(0).wrapping_sub(self.moved).cast_signed();
                let change = models.signed(coder, What::Base, change);
                let place = self.moved.wrapping_add_signed(change);
                let entry = usize::try_from(place).ok().and_then(|place| self.base.get(place));
                let Some(Node::File { sha256, size, .. }) = entry.map(|entry| &entry.node) else {
                    return Err(DeltaError::Malformed("it names an object that is not there"));
                };
                self.moved = place + 1;
                (*sha256, *size)
            }
            _ => return Err(DeltaError::Malformed("a file holds nothing")),
        };
        self.installed = self
            .installed
            .checked_sub(size)
            .ok_or(DeltaError::Malformed("its files are larger than signed"))?;

        // Its frame: objects that are the same share one.
        let extension = path.rsplit('/').next().and_then(|name| name.rsplit_once('.'));
        let extension = extension.map_or(String::new(), |(_, extension)| extension.to_ascii_lowercase());
        let frame = if let Some(frame) = self.frame_of.get(&object) {
            *frame
        } else {
            let of_base = known.and_then(|(frame, ..)| self.frames_of_base.get(&frame));
            let guess = of_base.or_else(|| self.frames_of_extension.get(&extension)).copied();
            let guess = guess.unwrap_or_else(|| known.map_or(0, |(frame, ..)| frame));
            let hit = usize::from(of_base.is_none());
            let frame = models.predicted(coder, hit, What::Frame, u64::from(guess), u64::from(given_frame));
            u32::try_from(frame).map_err(|_| DeltaError::Malformed("a frame has no number"))?
        };
        self.frame_of.insert(object, frame);
        if let Some((of_base, ..)) = known {
            self.frames_of_base.insert(of_base, frame);
        }
        self.frames_of_extension.insert(extension, frame);
        Ok(Node::File { frame, mode, sha256: object, size })
    }

    /// Frames: their length follows from what is in them, their size is as before if that is.
    fn frames<C: Coder>(
        &mut self,
        coder: &mut C,
        models: &mut Models,
        base: &[Frame],
        given: &[Frame],
        limits: Limits,
    ) -> Result<(), DeltaError> {
        let highest = self.frame_of.values().map(|frame| u64::from(*frame) + 2).max().unwrap_or(1);
        let count = models.predicted(coder, 2, What::Count, highest, given.len() as u64);
        if count > limits.manifest / SMALLEST_ENTRY + 1 {
            return Err(DeltaError::Malformed("it has more frames than the manifest has room for"));
        }
        let mut lengths: BTreeMap<u64, u64> = BTreeMap::new();
        let mut before: BTreeMap<u64, u32> = BTreeMap::new();
        for (of_base, frame) in &self.frames_of_base {
            before.entry(u64::from(*frame)).or_insert(*of_base);
        }
        let mut seen = BTreeSet::new();
        let frame_of_skeleton = 0;
        for entry in &self.lists.entries {
            let (frame, first) = match entry.node {
                Node::File { frame, mode, sha256, .. } => (u64::from(frame), seen.insert((sha256, mode))),
                _ => (frame_of_skeleton, true),
            };
            *lengths.entry(frame).or_default() += entry_tar_bytes(entry, first);
        }
        for index in 0..count {
            let frame = usize::try_from(index).ok().and_then(|index| given.get(index));
            let guess = if index + 1 == count { 1024 } else { lengths.get(&index).copied().unwrap_or(0) };
            let length =
                models.predicted(coder, 3, What::FrameLength, guess, frame.map_or(0, |frame| frame.length));
            let size = frame.map_or(0, |frame| frame.size);
            let old = before.get(&index).and_then(|old| base.get(*old as usize));
            let size = match old {
                Some(old) => models.predicted(coder, 4, What::FrameSizeChange, old.size, size),
                None => models.number(coder, What::FrameSize, size),
            };
            self.lists.frames.push(Frame { length, size });
        }
        Ok(())
    }
}
