//! What a store shows of a release: pictures, words to be found by, and a page of its own.
//!
//! ```text
//! listing (catalogue)   icon, keywords, subjects, levels ── small: everybody's catalogue has it
//!     └─ page ──▶ media/<sha256>   a StorePage: description, news, screenshots ── fetched when somebody opens it
//!                      └─ screenshots ──▶ media/<sha256>
//! ```
//!
//! It is part of what the packager signs and the rectorat approves; each file is named by its digest, and may come from anywhere.
//!
//! Threats and the defence for each:
//! - *A description that is markup*: it is text, for whoever shows it to escape; no control character but line breaks.
//! - *A link that is a script*: a homepage begins with `https://`.
//! - *Pictures without end*: sizes and numbers are limited, here and where they are fetched.

use serde::{Deserialize, Serialize};

use crate::names::{Tag, Text};
use crate::{Digest, Json};

/// The most of an icon.
pub const MAX_ICON_BYTES: u64 = 32 << 10;
/// The most of a screenshot: a page of a store shows several over a school's network.
pub const MAX_SCREENSHOT_BYTES: u64 = 160 << 10;
/// The most of a page.
pub const MAX_PAGE_BYTES: u64 = 64 << 10;
const MAX_WORDS: usize = 12;
const MAX_WORD_BYTES: usize = 40;
const MAX_TEXT_BYTES: usize = 4000;
const MAX_LINE_BYTES: usize = 200;
const MAX_SCREENSHOTS: usize = 6;

/// What kind of picture a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are names of formats")]
pub enum MediaKind {
    Jpeg,
    Png,
    Svg,
    Webp,
}

impl MediaKind {
    /// What a file is, by its first bytes.
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        let beginning = String::from_utf8_lossy(bytes.get(..bytes.len().min(256))?).into_owned();
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ if ["<svg", "<?xml"].iter().any(|tag| beginning.trim_start().starts_with(tag)) => {
                Some(Self::Svg)
            }
            _ => None,
        }
    }

    /// Its MIME type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Svg => "image/svg+xml",
            Self::Webp => "image/webp",
        }
    }
}

/// A picture: the file `media/<sha256>` of any server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: MediaKind,
    /// Its digest, and its name.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// The file of a [`StorePage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageFile {
    /// Its digest, and its name.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What the catalogue lists. Members that a reader does not know are passed over: a later version's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Showcase {
    /// Its icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<Media>,
    /// Words to be found by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// School levels that it is for: `6e`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Tag>,
    /// Its own page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PageFile>,
    /// School subjects that it is for: `mathematics`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Tag>,
}

/// A package's own page in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorePage {
    /// Who makes the software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Paragraphs, which blank lines divide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Text>,
    /// `https://…`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// What is new in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub news: Option<Text>,
    /// How it looks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub screenshots: Vec<Screenshot>,
}

/// A picture of it at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screenshot {
    /// What is to be seen: also for whoever cannot see it.
    pub caption: Text,
    /// The picture.
    pub image: Media,
}

/// Why something cannot be shown in a store.
#[derive(Debug, thiserror::Error)]
pub enum ShowcaseError {
    /// Not JSON of this shape.
    #[error("the store page is malformed")]
    Malformed(#[source] serde_json::Error),
    /// More bytes than it may have.
    #[error("{what} has {size} bytes, more than {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How many it has.
        size: u64,
        /// How many it may have.
        limit: u64,
    },
    /// Too many of something.
    #[error("there are {count} {what}, more than {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A control character.
    #[error("{0} holds a control character")]
    ControlCharacter(&'static str),
    /// Not an address of the web.
    #[error("the homepage `{0}` does not begin with `https://`, or is no address")]
    Homepage(String),
}

impl Showcase {
    pub(crate) fn check(&self) -> Result<(), ShowcaseError> {
        check_media("the icon", self.icon, MAX_ICON_BYTES)?;
        if let Some(PageFile { size, .. }) = self.page {
            check_size("the store page", size, MAX_PAGE_BYTES)?;
        }
        check_count("keywords", self.keywords.len(), MAX_WORDS)?;
        check_count("subjects", self.subjects.len(), MAX_WORDS)?;
        check_count("levels", self.levels.len(), MAX_WORDS)?;
        self.keywords.iter().try_for_each(|word| check_line("a keyword", word, MAX_WORD_BYTES))
    }
}

impl StorePage {
    /// Reads a page.
    pub fn parse(bytes: &[u8]) -> Result<Self, ShowcaseError> {
        check_size("the store page", bytes.len() as u64, MAX_PAGE_BYTES)?;
        Json::check(bytes).map_err(ShowcaseError::Malformed)?;
        serde_json::from_slice::<Self>(bytes).map_err(ShowcaseError::Malformed)?.checked()
    }

    /// Itself, if a store can show it.
    pub fn checked(self) -> Result<Self, ShowcaseError> {
        if let Some(author) = &self.author {
            check_line("the author", author, MAX_LINE_BYTES)?;
        }
        if let Some(homepage) = &self.homepage {
            let rest = homepage.strip_prefix("https://").filter(|rest| !rest.is_empty());
            let plain = homepage.len() <= MAX_LINE_BYTES
                && homepage.chars().all(|c| c.is_ascii_graphic() && !"\"'<>\\^`{|}".contains(c));
            if rest.is_none() || !plain {
                return Err(ShowcaseError::Homepage(homepage.chars().take(80).collect()));
            }
        }
        for (what, text) in [("the description", &self.description), ("the news", &self.news)] {
            for text in text.iter().flat_map(|text| [&text.fr, &text.en]) {
                check_size(what, text.len() as u64, MAX_TEXT_BYTES as u64)?;
                if text.chars().any(|c| c.is_control() && c != '\n') {
                    return Err(ShowcaseError::ControlCharacter(what));
                }
            }
        }
        check_count("screenshots", self.screenshots.len(), MAX_SCREENSHOTS)?;
        for Screenshot { caption, image } in &self.screenshots {
            check_media("a screenshot", Some(*image), MAX_SCREENSHOT_BYTES)?;
            check_line("a caption", &caption.fr, MAX_LINE_BYTES)?;
            check_line("a caption", &caption.en, MAX_LINE_BYTES)?;
        }
        Ok(self)
    }

    /// The page's file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ShowcaseError> {
        Ok(Json::of(self).map_err(ShowcaseError::Malformed)?.to_file())
    }
}

impl PageFile {
    /// The file of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

fn check_media(what: &'static str, media: Option<Media>, limit: u64) -> Result<(), ShowcaseError> {
    media.map_or(Ok(()), |media| check_size(what, media.size, limit))
}

fn check_size(what: &'static str, size: u64, limit: u64) -> Result<(), ShowcaseError> {
    if size > limit { Err(ShowcaseError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn check_count(what: &'static str, count: usize, limit: usize) -> Result<(), ShowcaseError> {
    if count > limit { Err(ShowcaseError::TooMany { what, count, limit }) } else { Ok(()) }
}

fn check_line(what: &'static str, text: &str, limit: usize) -> Result<(), ShowcaseError> {
    check_size(what, text.len() as u64, limit as u64)?;
    if text.chars().any(char::is_control) { Err(ShowcaseError::ControlCharacter(what)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text { fr: text.to_owned(), en: text.to_owned() }
    }

    #[test]
    fn a_page_reads_as_it_was_written_and_says_what_is_wrong() {
        let image = Media { kind: MediaKind::Png, sha256: Digest::of(b"x"), size: 10 };
        let caption = Text { fr: "c".into(), en: "c".into() };
        let page = StorePage {
            description: Some(text("Un.\n\nDeux <b>.")),
            homepage: Some("https://example.org/a".into()),
            screenshots: vec![Screenshot { caption, image }],
            ..StorePage::default()
        };
        assert_eq!(StorePage::parse(&page.to_bytes().unwrap()).unwrap(), page);
        let large = Screenshot {
            image: Media { size: MAX_SCREENSHOT_BYTES + 1, ..page.screenshots[0].image },
            ..page.screenshots[0].clone()
        };
        for wrong in [
            StorePage { homepage: Some("javascript:alert(1)".into()), ..page.clone() },
            StorePage { homepage: Some("http://example.org/".into()), ..page.clone() },
            StorePage { homepage: Some("https://a\"b".into()), ..page.clone() },
            StorePage { news: Some(text("a\u{7}")), ..page.clone() },
            StorePage { news: Some(text(&"a".repeat(MAX_TEXT_BYTES + 1))), ..page.clone() },
            StorePage { author: Some("a\nb".into()), ..page.clone() },
            StorePage { screenshots: vec![page.screenshots[0].clone(); MAX_SCREENSHOTS + 1], ..page.clone() },
            StorePage { screenshots: vec![large], ..page.clone() },
        ] {
            assert!(StorePage::parse(&wrong.to_bytes().unwrap()).is_err(), "{wrong:?}");
        }
        assert!(StorePage::parse(&b" ".repeat((64 << 10) + 1)).is_err());
    }

    #[test]
    fn a_showcase_is_small() {
        let icon = Media { kind: MediaKind::Svg, sha256: Digest::of(b"x"), size: MAX_ICON_BYTES };
        let good = Showcase { icon: Some(icon), keywords: vec!["géométrie".into()], ..Showcase::default() };
        assert!(good.check().is_ok());
        let large = Some(Media { size: MAX_ICON_BYTES + 1, ..icon });
        for wrong in [
            Showcase { icon: large, ..good.clone() },
            Showcase { keywords: vec!["a".into(); MAX_WORDS + 1], ..good.clone() },
            Showcase { keywords: vec!["a".repeat(MAX_WORD_BYTES + 1)], ..good.clone() },
            Showcase { keywords: vec!["a\n".into()], ..good.clone() },
            Showcase { page: Some(PageFile { sha256: icon.sha256, size: MAX_PAGE_BYTES + 1 }), ..good },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_picture_is_what_its_first_bytes_say() {
        assert_eq!(MediaKind::recognise(b"\x89PNG\r\n"), Some(MediaKind::Png));
        assert_eq!(MediaKind::recognise(b"  <svg xmlns='x'>"), Some(MediaKind::Svg));
        for other in [b"".as_slice(), b"<html>", b"<script>", b"GIF89a", b"MZ"] {
            assert_eq!(MediaKind::recognise(other), None);
        }
    }
}
