//! What a recipe says for the store: read, checked, and made into files that are named by their digests.
//!
//! ```toml
//! [store]
//! icon = "icon.svg"                                   # relative to the recipe; PNG, JPEG, WebP or SVG, at most 32 KiB
//! keywords = ["géométrie"]
//! subjects = ["mathematics"]; levels = ["6e", "5e"]
//! author = "International GeoGebra Institute"; homepage = "https://www.geogebra.org/"
//! description = { fr = "…", en = "…" }                # paragraphs, which blank lines divide
//! news = { fr = "…", en = "…" }
//! [[store.screenshot]]
//! image = "screenshot.png"                            # at most 160 KiB
//! caption = { fr = "…", en = "…" }
//! ```
//!
//! Files of a release for the store lie in `media/<sha256>` beside its bundle, and go the way of it: built, submitted, published.
//!
//! Threats: a picture is shown as a picture by whoever shows it. One that could be more, an SVG with a script, a handler, an entity or a
//! reference to elsewhere, is refused here as well, where a packager can mend it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::network::media_path;
use mirabelle_manifests::{
    Digest, MAX_ICON_BYTES, MAX_PAGE_BYTES, MAX_SCREENSHOT_BYTES, Media, MediaKind, PageFile, Screenshot,
    Showcase, SignedRelease, StorePage, Tag, Text,
};
use mirabelle_terminal::{Failure, OrFail};
use roxmltree::{Document, Node, NodeType};
use serde::Deserialize;

use crate::repository::Repository;

/// `[store]` of a recipe.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreTable {
    icon: Option<PathBuf>,
    keywords: Vec<String>,
    subjects: Vec<Tag>,
    levels: Vec<Tag>,
    author: Option<String>,
    homepage: Option<String>,
    description: Option<Text>,
    news: Option<Text>,
    screenshot: Vec<ScreenshotTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScreenshotTable {
    image: PathBuf,
    caption: Text,
}

/// Files by their digests.
pub(crate) type Files = BTreeMap<Digest, Vec<u8>>;

impl StoreTable {
    /// What it comes to; paths begin at `directory`.
    pub(crate) fn read(&self, directory: &Path) -> Result<(Showcase, Files), Failure> {
        let mut files = Files::new();
        let mut picture = |path: &Path, limit: u64| -> Result<Media, Failure> {
            let (media, bytes) = read_picture(&directory.join(path), limit)?;
            files.insert(media.sha256, bytes);
            Ok(media)
        };
        let icon = self.icon.as_deref().map(|path| picture(path, MAX_ICON_BYTES)).transpose()?;
        let screenshots = self.screenshot.iter().map(|shot| {
            let image = picture(&shot.image, MAX_SCREENSHOT_BYTES)?;
            Ok(Screenshot { caption: shot.caption.clone(), image })
        });
        let page = StorePage {
            author: self.author.clone(),
            description: self.description.clone(),
            homepage: self.homepage.clone(),
            news: self.news.clone(),
            screenshots: screenshots.collect::<Result<_, Failure>>()?,
        };
        let what = || "the store cannot show what the recipe says under `[store]`".to_owned();
        let page = page.checked().or_fail(what)?;
        let mut file = None;
        if page != StorePage::default() {
            let bytes = page.to_bytes().or_fail(what)?;
            file = Some(PageFile::of(&bytes));
            files.insert(Digest::of(&bytes), bytes);
        }
        let showcase = Showcase {
            icon,
            keywords: self.keywords.clone(),
            levels: self.levels.clone(),
            page: file,
            subjects: self.subjects.clone(),
        };
        Ok((showcase, files))
    }
}

fn read_picture(path: &Path, limit: u64) -> Result<(Media, Vec<u8>), Failure> {
    let what = || format!("cannot use the picture `{}`", path.display());
    let bytes = durable::read_if_present(path, limit)
        .or_fail(what)?
        .ok_or_else(|| Failure::usage(format!("the picture `{}` does not exist", path.display())))?;
    let kind = MediaKind::recognise(&bytes)
        .ok_or_else(|| Failure::usage(format!("{}: it is no PNG, JPEG, WebP or SVG", what())))?;
    if kind == MediaKind::Svg
        && let Some(fault) = fault_of_svg(&bytes)
    {
        return Err(Failure::usage(format!("{}: it holds {fault}", what()))
            .hint("an icon is drawn, and does nothing: save it as plain SVG, or as PNG"));
    }
    Ok((Media { kind, sha256: Digest::of(&bytes), size: bytes.len() as u64 }, bytes))
}

/// What of an SVG is more than a drawing.
fn fault_of_svg(bytes: &[u8]) -> Option<&'static str> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("something else than text") };
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(roxmltree::Error::DtdDetected) => return Some("a document type, and maybe entities"),
        Err(_) => return Some("something that is no XML"),
    };
    document.descendants().find_map(|node| match node.node_type() {
        NodeType::PI => Some("an instruction, such as for a style sheet of elsewhere"),
        NodeType::Element => fault_of_element(&node),
        // A style sheet in an element of its own; elsewhere it is words.
        NodeType::Text if node.parent_element().is_some_and(|parent| parent.has_tag_name("style")) => {
            node.text().and_then(fault_of_style)
        }
        _ => None,
    })
}

fn fault_of_element(element: &Node<'_, '_>) -> Option<&'static str> {
    match element.tag_name().name().to_ascii_lowercase().as_str() {
        "script" => return Some("a script"),
        "foreignobject" | "iframe" | "embed" | "object" => return Some("another document"),
        _ => {}
    }
    if element.tag_name().namespace() == Some("http://www.w3.org/1999/xhtml") {
        return Some("another document");
    }
    element.attributes().find_map(|attribute| {
        let (name, value) = (attribute.name().to_ascii_lowercase(), attribute.value().trim_start());
        match name.as_str() {
            name if name.starts_with("on") => Some("an event handler"),
            // An animation may set what an attribute may not be.
            "attributename" if value.to_ascii_lowercase().ends_with("href") => {
                Some("a reference that changes")
            }
            "href" | "src" if !value.starts_with('#') && !value.starts_with("data:image/") => {
                Some("a reference to elsewhere")
            }
            _ => fault_of_style(value),
        }
    })
}

fn fault_of_style(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    if text.contains("@import") {
        return Some("a style sheet of elsewhere");
    }
    let elsewhere = |rest: &str| !rest.trim_start_matches(['"', '\'', ' ']).starts_with('#');
    text.split("url(").skip(1).any(elsewhere).then_some("a reference to elsewhere")
}

/// Digests and limits of the files that a release shows in the store; the page's pictures are known once the page is.
fn of_showcase(showcase: &Showcase) -> impl Iterator<Item = (Digest, u64)> {
    let icon = showcase.icon.iter().map(|icon| (icon.sha256, MAX_ICON_BYTES));
    icon.chain(showcase.page.iter().map(|page| (page.sha256, MAX_PAGE_BYTES)))
}

/// Reads the files that a release shows in the store, from a folder that has them by their digests.
pub(crate) fn read_files(showcase: Option<&Showcase>, directory: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    let Some(showcase) = showcase else { return Ok(files) };
    for (digest, limit) in of_showcase(showcase) {
        files.insert(digest, read_file(directory, digest, limit)?);
    }
    if let Some(page) = showcase.page.and_then(|page| files.get(&page.sha256)) {
        let page =
            StorePage::parse(page).or_fail(|| "the release's store page cannot be shown".to_owned())?;
        for Screenshot { image, .. } in page.screenshots {
            files.insert(image.sha256, read_file(directory, image.sha256, MAX_SCREENSHOT_BYTES)?);
        }
    }
    Ok(files)
}

fn read_file(directory: &Path, digest: Digest, limit: u64) -> Result<Vec<u8>, Failure> {
    let path = directory.join(digest.to_string());
    let bytes =
        durable::read_if_present(&path, limit).or_fail(|| format!("cannot read `{}`", path.display()))?;
    match bytes {
        Some(bytes) if Digest::of(&bytes) == digest => Ok(bytes),
        Some(_) => Err(Failure::trust(format!("`{}` is not the file that was signed", path.display()))),
        None => Err(Failure::trust(format!("`{}`, which the store shows, is missing", path.display()))),
    }
}

/// Writes files into a folder, each under its digest.
pub(crate) fn write_files(files: &Files, directory: &Path) -> Result<(), Failure> {
    let what = || format!("cannot write `{}`", directory.display());
    if !files.is_empty() {
        fs::create_dir_all(directory).or_fail(what)?;
    }
    for (digest, bytes) in files {
        let path = directory.join(digest.to_string());
        if !path.exists() {
            durable::write_atomically(&path, bytes).or_fail(what)?;
        }
    }
    Ok(())
}

impl Repository {
    /// Puts a release's files for the store where they are served, from where it was handed in.
    pub(crate) fn publish_media(&self, signed: &SignedRelease) -> Result<(), Failure> {
        let Some(showcase) = &signed.release.showcase else { return Ok(()) };
        let submitted = self.submission_directory(signed.digest).join("media");
        let all_there =
            of_showcase(showcase).all(|(digest, _)| self.public().join(media_path(digest)).exists());
        if all_there && !submitted.exists() {
            return Ok(());
        }
        write_files(&read_files(Some(showcase), &submitted)?, &self.public().join("media"))
    }

    /// What a release shows in the store, from where it was handed in or is served.
    pub(crate) fn store_page(&self, signed: &SignedRelease) -> Result<Option<StorePage>, Failure> {
        let Some(page) = signed.release.showcase.as_ref().and_then(|showcase| showcase.page) else {
            return Ok(None);
        };
        let submitted = self.submission_directory(signed.digest).join("media");
        let directory = if submitted.exists() { submitted } else { self.public().join("media") };
        let bytes = read_file(&directory, page.sha256, MAX_PAGE_BYTES)?;
        StorePage::parse(&bytes).map(Some).or_fail(|| "the release's store page cannot be shown".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_svg_is_a_drawing_and_nothing_else() {
        let drawing = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><defs><g id="a"/></defs>
            <use href="#a"/><path fill="url(#b)" d="M0 0h8"/><title>Version=2, onload=x, url(a)</title>
            <style>path { fill: url('#b') }</style></svg>"##;
        assert_eq!(fault_of_svg(drawing.as_bytes()), None);
        for (svg, fault) in [
            ("<svg><SCRIPT>x</SCRIPT></svg>", "a script"),
            ("<svg xmlns:s='http://www.w3.org/2000/svg'><s:script/></svg>", "a script"),
            ("<svg onload='x'/>", "an event handler"),
            ("<svg><g ONCLICK = \"x\"/></svg>", "an event handler"),
            ("<svg><image href='https://e.example/x.png'/></svg>", "a reference to elsewhere"),
            (
                "<svg xmlns:l='http://www.w3.org/1999/xlink'><image l:href='//e.example/x'/></svg>",
                "a reference to elsewhere",
            ),
            ("<svg><a href='&#x6a;avascript:x'/></svg>", "a reference to elsewhere"),
            ("<svg><a><set attributeName='href' to='javascript:x'/></a></svg>", "a reference that changes"),
            ("<svg><rect fill='url(http://e.example/#x)'/></svg>", "a reference to elsewhere"),
            ("<svg><style>a { fill: URL(x) }</style></svg>", "a reference to elsewhere"),
            ("<svg><foreignObject/></svg>", "another document"),
            ("<svg><p xmlns='http://www.w3.org/1999/xhtml'/></svg>", "another document"),
            ("<!DOCTYPE svg [<!ENTITY x 'y'>]><svg/>", "a document type, and maybe entities"),
            (
                "<?xml-stylesheet href='x.css'?><svg/>",
                "an instruction, such as for a style sheet of elsewhere",
            ),
            ("<svg><style>@import 'x'</style></svg>", "a style sheet of elsewhere"),
            ("<svg><g></svg>", "something that is no XML"),
        ] {
            assert_eq!(fault_of_svg(svg.as_bytes()), Some(fault), "{svg}");
        }
        assert!(fault_of_svg(b"<svg>\xff</svg>").is_some());
    }
}
