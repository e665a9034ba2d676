//! Who signed, approved, deployed, paused and published what: a log that can be added to and not changed.
//!
//! ```text
//! audit.log      one JSON object a line: {"sequence":7,"time":…,"event":"signed","role":"catalogue","version":5,
//!                "keys":["3f1c…"],"what":["approves geogebra 6.2.1 …"],"previous":"<SHA-256 of line 6>"}
//! ```
//!
//! Each line holds the digest of the one before, and every published snapshot the digest of the newest line at that time
//! (`x-audit`), signed and kept by every node: whoever rewrites the log on the server must rewrite what 92 colleges hold.
//!
//! People appear as key ids and roles, never by name. A line is written and synced before the command ends, after what it
//! tells of: a kill between the two leaves an act without its line, and one that it cut short is dropped by the next.

use std::io::{Read, Seek, SeekFrom, Write};

use fs_err as fs;
use mirabelle_keys::KeyId;
use mirabelle_manifests::{Digest, Instant};
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use crate::repository::Repository;
use crate::review::visible;

const FILE: &str = "audit.log";
/// No line is longer than this: what does not fit into [`MAX_WORD_BYTES`] is counted.
const MAX_LINE_BYTES: u64 = 256 << 10;
/// JSON writes a byte of text in six at most.
const MAX_WORD_BYTES: usize = 32 << 10;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) time: Instant,
    pub(crate) event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    /// Whose keys were used.
    pub(crate) keys: Vec<KeyId>,
    pub(crate) what: Vec<String>,
    /// SHA-256 of the line before; of nothing, for the first.
    pub(crate) previous: Digest,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Event {
    /// The repository was made.
    Initialised,
    /// A release was handed in.
    Submitted,
    /// A draft was signed.
    Signed,
    /// A draft was dropped.
    Discarded,
    /// A draft had all its signatures and took its place.
    Completed,
    /// What was signed was made known.
    Published,
}

impl Event {
    fn word(self) -> &'static str {
        match self {
            Self::Initialised => "initialised",
            Self::Submitted => "submitted",
            Self::Signed => "signed",
            Self::Discarded => "discarded",
            Self::Completed => "completed",
            Self::Published => "published",
        }
    }
}

/// What to write down.
pub(crate) struct Record {
    pub(crate) event: Event,
    /// Which role's document, and its version.
    pub(crate) document: Option<(String, u64)>,
    pub(crate) keys: Vec<KeyId>,
    pub(crate) what: Vec<String>,
}

/// The log, read and found whole.
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    /// The digest of each line.
    digests: Vec<Digest>,
}

impl Log {
    /// Reads the log; refuses a line that does not follow from the one before.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut log = Self { entries: Vec::new(), digests: Vec::new() };
        let mut previous = Digest::of(b"");
        for (number, line) in text.lines().enumerate() {
            let broken = |why: &str| Failure::trust(format!("line {} of `{FILE}` {why}", number + 1));
            let entry: Entry =
                serde_json::from_str(line).map_err(|error| broken(&format!("cannot be read: {error}")))?;
            if entry.previous != previous {
                return Err(broken("does not follow from the line before: something was changed or removed"));
            }
            if entry.sequence != number as u64 + 1 {
                return Err(broken(&format!("is numbered {}", entry.sequence)));
            }
            previous = Digest::of(line.as_bytes());
            log.entries.push(entry);
            log.digests.push(previous);
        }
        Ok(log)
    }

    /// The line whose digest a snapshot holds.
    pub(crate) fn line_of(&self, digest: Digest) -> Option<usize> {
        self.digests.iter().position(|other| *other == digest).map(|index| index + 1)
    }
}

impl Entry {
    /// As one line for people.
    pub(crate) fn words(&self) -> String {
        let role = match (&self.role, self.version) {
            (Some(role), Some(version)) => format!(" {role} {version}"),
            _ => String::new(),
        };
        let keys: Vec<&str> = self.keys.iter().map(KeyId::short).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" with key {}", keys.join(", ")) };
        let what = if self.what.is_empty() { String::new() } else { format!(": {}", self.what.join("; ")) };
        visible(&format!("{:.0} {}{role}{by}{what}", self.time, self.event.word()))
    }

    /// As RFC 5424 has it: facility 13 (log audit), severity 5 (notice). 32473 is the enterprise number for examples.
    pub(crate) fn rfc5424(&self) -> String {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
        let keys: Vec<&str> = self.keys.iter().map(KeyId::as_str).collect();
        let mut data = format!("sequence=\"{}\" keys=\"{}\"", self.sequence, escape(&keys.join(" ")));
        if let (Some(role), Some(version)) = (&self.role, self.version) {
            data = format!("{data} role=\"{}\" version=\"{version}\"", escape(role));
        }
        let message = self.what.join("; ").replace(['\n', '\r'], " ");
        format!(
            "<109>1 {:.0} - mirabelle-publisher - {} [audit@32473 {data}] {message}",
            self.time,
            self.event.word()
        )
    }
}

impl Repository {
    /// Writes down what happened.
    pub(crate) fn record(&self, record: Record, now: Instant) -> Result<(), Failure> {
        let path = self.path(FILE);
        let what = || format!("cannot write to `{}`", path.display());
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .or_fail(what)?;
        let (end, last) = last_line(&mut file).or_fail(what)?;
        let before: Option<Entry> = match &last {
            Some(line) => Some(serde_json::from_slice(line).map_err(|error| {
                Failure::trust(format!("the last line of `{}` cannot be read: {error}", path.display()))
            })?),
            None => None,
        };
        let mut words = record.what;
        let mut room = MAX_WORD_BYTES;
        let fit = words.iter().take_while(|line| {
            let fits = line.len() <= room;
            room = room.saturating_sub(line.len());
            fits
        });
        let fit = fit.count();
        if fit < words.len() {
            let more = words.len() - fit;
            words.truncate(fit);
            words.push(format!("and {more} more"));
        }
        let (role, version) = record.document.unzip();
        let entry = Entry {
            sequence: before.map_or(0, |entry| entry.sequence) + 1,
            time: Instant::from_second(now.as_second()).unwrap_or(now),
            event: record.event,
            role,
            version,
            keys: record.keys,
            what: words,
            previous: Digest::of(&last.unwrap_or_default()),
        };
        let mut line = serde_json::to_vec(&entry).or_fail(what)?;
        line.push(b'\n');
        file.set_len(end).or_fail(what)?;
        file.seek(SeekFrom::Start(end)).or_fail(what)?;
        file.write_all(&line).and_then(|()| file.sync_all()).or_fail(what)
    }

    /// The digest of the newest line.
    pub(crate) fn audit_head(&self) -> Result<Option<Digest>, Failure> {
        let path = self.path(FILE);
        let what = || format!("cannot read `{}`", path.display());
        if !fs::exists(&path).or_fail(what)? {
            return Ok(None);
        }
        let (_, last) = last_line(&mut fs::File::open(&path).or_fail(what)?).or_fail(what)?;
        Ok(last.map(|line| Digest::of(&line)))
    }

    /// The whole log.
    pub(crate) fn audit_log(&self) -> Result<Log, Failure> {
        let path = self.path(FILE);
        let what = || format!("cannot read `{}`", path.display());
        let mut text = if fs::exists(&path).or_fail(what)? {
            fs::read_to_string(&path).or_fail(what)?
        } else {
            String::new()
        };
        // What follows the last line break was cut short by a kill.
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        Log::parse(&text)
    }
}

/// Where the last whole line ends, and the line without its break.
fn last_line(file: &mut fs::File) -> std::io::Result<(u64, Option<Vec<u8>>)> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(2 * MAX_LINE_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(length - start).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // Nothing here may ever be written over.
        return if start == 0 {
            Ok((0, None))
        } else {
            Err(std::io::Error::other("its last line has no end"))
        };
    };
    let begin = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok((start + end as u64 + 1, Some(tail[begin..end].to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: u64) -> String {
        let mut text = String::new();
        let mut previous = Digest::of(b"");
        for sequence in 1..=lines {
            let entry = Entry {
                sequence,
                time: "2026-11-24T10:00:00Z".parse().unwrap(),
                event: Event::Signed,
                role: Some("catalogue".into()),
                version: Some(sequence),
                keys: vec![],
                what: vec![format!("says \"{sequence}\" ]")],
                previous,
            };
            let line = serde_json::to_string(&entry).unwrap();
            previous = Digest::of(line.as_bytes());
            text += &line;
            text.push('\n');
        }
        text
    }

    #[test]
    fn any_change_to_any_line_breaks_the_chain() {
        let text = log(4);
        assert_eq!(Log::parse(&text).unwrap().entries.len(), 4);
        let lines: Vec<&str> = text.lines().collect();
        let without = |index: usize| {
            let kept = lines.iter().enumerate().filter(|(at, _)| *at != index);
            kept.flat_map(|(_, line)| [*line, "\n"]).collect::<String>()
        };
        let cases = [
            text.replacen("says \\\"2\\\"", "says \\\"9\\\"", 1),
            without(0),
            without(2),
            format!("{}\n{}\n", lines[1], lines[0]),
            format!("{text}{}\n", lines[3]),
        ];
        for case in cases {
            assert!(Log::parse(&case).is_err(), "{case}");
        }
        // Its end can be cut off without a trace in the log itself; snapshots hold the digest of what was there.
        let cut = Log::parse(&without(3)).unwrap();
        let last = Digest::of(lines[3].as_bytes());
        assert_eq!((cut.line_of(last), Log::parse(&text).unwrap().line_of(last)), (None, Some(4)));
    }

    #[test]
    fn speaks_syslog() {
        let entry = Log::parse(&log(1)).unwrap().entries.remove(0);
        assert_eq!(
            entry.rfc5424(),
            "<109>1 2026-11-24T10:00:00Z - mirabelle-publisher - signed [audit@32473 sequence=\"1\" keys=\"\" \
             role=\"catalogue\" version=\"1\"] says \"1\" ]"
        );
    }
}
