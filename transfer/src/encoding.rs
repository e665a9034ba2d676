//! Metadata in fewer bytes on the wire, over the same addresses: `dcz`, then `zstd`, then plain.
//!
//! ```text
//! GET /metadata/8.catalogue.json                      Accept-Encoding: dcz, zstd
//!                                                     Available-Dictionary: :<base64 of SHA-256 of what is held>:
//! 200                                                 Content-Encoding: dcz
//!   5e 2a 4d 18 20 00 00 00 <SHA-256 of the dictionary> <zstd frame with the dictionary as raw prefix>
//! ```
//!
//! RFC 9842 (dictionaries), RFC 8878 (zstd). The encoded forms are files beside the tree, made when it is published, so
//! that nothing is compressed while somebody waits:
//!
//! ```text
//! <tree>/encoded/<path>.zst
//! <tree>/encoded/<path>.<SHA-256 of the dictionary>.dcz
//! ```
//!
//! Any index can be deleted: without this directory everything is served plain. Nothing here is trusted: what decodes
//! is as long and has the digest that the role above signed for, or is refused like anything else.
//!
//! Threats and the defence for each:
//! - *A body that decodes to more than it may*: decoding stops at the signed length.
//! - *A frame that asks for much memory*: windows above [`MAX_WINDOW_LOG`] are refused.
//! - *A server whose encoded copy is damaged, or of another file*: it is asked for again, plain.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::Digest;

/// The first bytes of a `dcz` body (RFC 9842, 2.2): a skippable zstd frame that holds the dictionary's digest.
const DCZ_MAGIC: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];
const DCZ_HEADER_BYTES: usize = DCZ_MAGIC.len() + 32;
/// 128 MiB: what RFC 9842 lets a decoder be asked for, and twice the largest metadata that is read.
const MAX_WINDOW_LOG: u32 = 27;
/// Below this, zstd does not find the old version again in a catalogue of 10,000 releases (measured: level 3 gives
/// 227 kB, level 12 gives 1 kB).
const DICTIONARY_LEVEL: i32 = 12;
/// Compressing without a dictionary happens once for each file, and is read by every newcomer.
const PLAIN_LEVEL: i32 = 15;
/// Shorter files gain nothing.
const WORTH_ENCODING: usize = 512;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Dcz,
    Zstd,
}

impl Encoding {
    /// The token in `Content-Encoding` and `Accept-Encoding`.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Dcz => "dcz",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn from_token(token: &str) -> Option<Self> {
        [Self::Dcz, Self::Zstd].into_iter().find(|encoding| encoding.token().eq_ignore_ascii_case(token))
    }

    /// True when `Accept-Encoding` names it, and not with a weight of nothing (RFC 9110, 12.5.3).
    pub(crate) fn is_accepted(self, accepted: &str) -> bool {
        accepted.split(',').any(|offer| {
            let (token, parameters) = offer.split_once(';').unwrap_or((offer, ""));
            let weight = parameters.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
            token.trim().eq_ignore_ascii_case(self.token()) && weight.is_none_or(|weight| weight > 0.0)
        })
    }
}

/// The plain bytes of a body with `Content-Encoding: zstd`. Whoever reads it knows where to stop.
///
/// # Errors
/// Any error of zstd's.
pub(crate) fn unzstd(body: impl BufRead) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

/// The value of `Available-Dictionary`: a structured field of bytes (RFC 9842, 2.2; RFC 9651).
pub(crate) fn available_dictionary(dictionary: &[u8]) -> String {
    format!(":{}:", BASE64_STANDARD.encode(Digest::of(dictionary).as_bytes()))
}

/// Decodes a body to at most `limit` bytes; one more is returned when there are more, and no further.
///
/// # Errors
/// When it is not what `encoding` says, or was made with another dictionary.
pub(crate) fn decode(
    encoding: Encoding,
    body: &[u8],
    dictionary: Option<&[u8]>,
    limit: u64,
) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match (encoding, dictionary) {
        (Encoding::Zstd, _) => {
            unzstd(body)?.take(limit.saturating_add(1)).read_to_end(&mut plain)?;
        }
        (Encoding::Dcz, Some(dictionary)) => {
            let (header, frame) = body
                .split_at_checked(DCZ_HEADER_BYTES)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "shorter than its header"))?;
            let ours = Digest::of(dictionary);
            if header[..DCZ_MAGIC.len()] != DCZ_MAGIC || header[DCZ_MAGIC.len()..] != ours.as_bytes()[..] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "made with another dictionary"));
            }
            let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(frame, dictionary)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            decoder.take(limit.saturating_add(1)).read_to_end(&mut plain)?;
        }
        (Encoding::Dcz, None) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "made with a dictionary nobody offered"));
        }
    }
    Ok(plain)
}

/// The encoded forms of a served tree.
#[derive(Clone, Debug)]
pub struct EncodedForms {
    directory: PathBuf,
}

impl EncodedForms {
    /// Those of the tree at `tree`.
    pub fn of(tree: &Path) -> Self {
        Self { directory: tree.join("encoded") }
    }

    /// Makes the forms of the file `path` of the tree, which holds `plain`: one for readers that hold nothing, and one
    /// for each of the `dictionaries` that earlier readers hold. Those that are there already stay.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn add(&self, path: &str, plain: &[u8], dictionaries: &[Vec<u8>]) -> io::Result<()> {
        if plain.len() < WORTH_ENCODING {
            return Ok(());
        }
        let make = |form: PathBuf, encode: &dyn Fn() -> io::Result<Vec<u8>>| {
            if fs::exists(&form)? {
                return Ok(());
            }
            let encoded = encode()?;
            // Encoding that does not pay is not offered.
            if encoded.len() < plain.len() { durable::write_atomically(&form, &encoded) } else { Ok(()) }
        };
        make(self.zstd(path), &|| compress(plain))?;
        for dictionary in dictionaries.iter().filter(|dictionary| !dictionary.is_empty()) {
            let digest = Digest::of(dictionary);
            make(self.dcz(path, digest), &|| compress_against(plain, dictionary))?;
        }
        Ok(())
    }

    /// Removes the forms of one file, whose content is another than they were made from.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn discard(&self, path: &str) -> io::Result<()> {
        let discarded = path.to_owned();
        self.retain(|path| path != discarded)
    }

    /// Removes the forms of every file of which `keep` says no.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            if !fs::exists(&directory)? {
                continue;
            }
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let below = path.strip_prefix(&self.directory).ok().and_then(Path::to_str);
                if !below.and_then(plain_path).is_some_and(&keep) {
                    durable::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    /// The forms of `path` that somebody who accepts these encodings and holds this dictionary can read, the best first;
    /// whether they are here is another question.
    pub(crate) fn offered(
        &self,
        path: &str,
        accepted: &str,
        dictionary: Option<&str>,
    ) -> impl Iterator<Item = (PathBuf, Encoding)> + use<> {
        let digest = dictionary.filter(|_| Encoding::Dcz.is_accepted(accepted)).and_then(|field| {
            let bytes = BASE64_STANDARD.decode(field.trim().strip_prefix(':')?.strip_suffix(':')?).ok()?;
            bytes.try_into().ok().map(Digest::from_bytes)
        });
        let dcz = digest.map(|digest| (self.dcz(path, digest), Encoding::Dcz));
        let zstd = Encoding::Zstd.is_accepted(accepted).then(|| (self.zstd(path), Encoding::Zstd));
        dcz.into_iter().chain(zstd)
    }

    fn zstd(&self, path: &str) -> PathBuf {
        self.directory.join(format!("{path}.zst"))
    }

    fn dcz(&self, path: &str, dictionary: Digest) -> PathBuf {
        self.directory.join(format!("{path}.{dictionary}.dcz"))
    }
}

/// The file that a form is of.
fn plain_path(form: &str) -> Option<&str> {
    form.strip_suffix(".zst").or_else(|| Some(form.strip_suffix(".dcz")?.rsplit_once('.')?.0))
}

fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), PLAIN_LEVEL)?;
    encoder.include_checksum(true)?;
    io::Write::write_all(&mut encoder, plain)?;
    encoder.finish()
}

fn compress_against(plain: &[u8], dictionary: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = DCZ_MAGIC.to_vec();
    body.extend_from_slice(Digest::of(dictionary).as_bytes());
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(body, DICTIONARY_LEVEL, dictionary)?;
    // The window must reach back over the whole new version to the start of the old one.
    let reach = (plain.len() + dictionary.len()).next_power_of_two().ilog2().clamp(10, MAX_WINDOW_LOG);
    encoder.window_log(reach)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(plain.len() as u64))?;
    io::Write::write_all(&mut encoder, plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two versions of a list, the second with something new in the middle.
    fn versions() -> (Vec<u8>, Vec<u8>) {
        let list = |names: &mut dyn Iterator<Item = u32>| -> Vec<u8> {
            names
                .flat_map(|n| format!("{{\"{n}\":\"{}\"}},", Digest::of(&n.to_le_bytes())).into_bytes())
                .collect()
        };
        (list(&mut (0..2000)), list(&mut (0..1000).chain(5000..5003).chain(1000..2000)))
    }

    #[test]
    fn a_difference_is_small_and_decodes_to_the_same_bytes() {
        let (old, new) = versions();
        let dcz = compress_against(&new, &old).unwrap();
        assert!(dcz.len() < 400, "{} bytes", dcz.len());
        let limit = new.len() as u64;
        assert_eq!(decode(Encoding::Dcz, &dcz, Some(&old), limit).unwrap(), new);
        let zstd = compress(&new).unwrap();
        assert_eq!(decode(Encoding::Zstd, &zstd, None, limit).unwrap(), new);
    }

    #[test]
    fn refuses_another_dictionary_and_anything_bent() {
        let (old, new) = versions();
        let limit = new.len() as u64;
        let dcz = compress_against(&new, &old).unwrap();
        assert!(decode(Encoding::Dcz, &dcz, Some(&new), limit).is_err());
        assert!(decode(Encoding::Dcz, &dcz, None, limit).is_err());
        assert!(decode(Encoding::Dcz, &dcz[..20], Some(&old), limit).is_err());
        assert!(decode(Encoding::Zstd, &dcz[..60], None, limit).is_err());
        for at in 0..dcz.len() {
            let mut bent = dcz.clone();
            bent[at] ^= 0x40;
            // Whatever comes out is checked against the signed digest; what matters is that it ends.
            if let Ok(plain) = decode(Encoding::Dcz, &bent, Some(&old), limit) {
                assert!(plain.len() as u64 <= limit + 1);
            }
        }
    }

    #[test]
    fn stops_at_the_limit() {
        let bomb = compress(&vec![0; 64 << 20]).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decode(Encoding::Zstd, &bomb, None, 1000).unwrap().len(), 1001);
    }

    #[test]
    fn offers_what_the_asker_can_read() {
        let directory = tempfile::tempdir().unwrap();
        let forms = EncodedForms::of(directory.path());
        let (old, new) = versions();
        forms.add("metadata/2.catalogue.json", &new, &[old.clone(), vec![]]).unwrap();
        let best = |path: &str, accepted: &str, dictionary: Option<&str>| {
            forms.offered(path, accepted, dictionary).find(|(form, _)| form.is_file()).map(|found| found.1)
        };
        let held = available_dictionary(&old);
        let other = available_dictionary(&new);
        let cases = [
            ("dcz, zstd", Some(held.as_str()), Some(Encoding::Dcz)),
            ("zstd, DCZ", Some(held.as_str()), Some(Encoding::Dcz)),
            ("zstd", Some(held.as_str()), Some(Encoding::Zstd)),
            ("dcz;q=0.5, zstd;q=0.1", Some(held.as_str()), Some(Encoding::Dcz)),
            ("dcz; q=0.000, zstd", Some(held.as_str()), Some(Encoding::Zstd)),
            ("dcz;q=0, zstd", Some(held.as_str()), Some(Encoding::Zstd)),
            ("dcz, zstd", Some(other.as_str()), Some(Encoding::Zstd)),
            ("dcz, zstd", Some("nonsense"), Some(Encoding::Zstd)),
            ("dcz, zstd", None, Some(Encoding::Zstd)),
            ("dcz", None, None),
            ("gzip, br", Some(held.as_str()), None),
            ("", None, None),
        ];
        for (accepted, dictionary, expected) in cases {
            let best = best("metadata/2.catalogue.json", accepted, dictionary);
            assert_eq!(best, expected, "{accepted} {dictionary:?}");
        }
        assert!(best("metadata/3.catalogue.json", "zstd", None).is_none());
        forms.retain(|path| path != "metadata/2.catalogue.json").unwrap();
        assert!(best("metadata/2.catalogue.json", "zstd", None).is_none());
    }
}
