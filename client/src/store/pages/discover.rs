//! The first page: what there is to discover; and each of its shelves as a page of its own.

use maud::{Markup, html};
use mirabelle_manifests::Tag;

use super::super::view::{Discover, Frame, Language, PageOf, Shelf, ShelfTitle};
use super::super::words::kind;
use super::frame::{Place, page};
use super::parts::cards;

pub(in crate::store) fn discover(frame: &Frame<'_>, shown: &Discover<'_>) -> Markup {
    let l = frame.language;
    let title = l.pick("Découvrir", "Discover");
    let content = html! {
        h1 { (title) }
        p.lead { (l.pick("Des applications approuvées par le rectorat, prêtes pour cet ordinateur.", "Applications approved by the rectorat, ready for this computer.")) }
        nav.kinds aria-label=(l.pick("Parcourir", "Browse")) {
            (kinds(l, "/category/", l.pick("Catégories", "Categories"), shown.categories.iter().map(|(name, count)| (name.as_str(), *count))))
            (kinds(l, "/subject/", l.pick("Matières", "Subjects"), tags(&shown.subjects)))
            (kinds(l, "/level/", l.pick("Niveaux", "Levels"), tags(&shown.levels)))
        }
        @for shelf in &shown.shelves {
            @if !shelf.items.is_empty() {
                section {
                    h2 { (shelf_title(l, &shelf.title)) }
                    (cards(frame, shelf.items.iter().copied()))
                    @if matches!(shelf.title, ShelfTitle::All) {
                        p { a href="/all" { (l.pick("Toutes les applications", "All applications")) } }
                    }
                }
            }
        }
    };
    page(frame, Place::Discover, title, &content)
}

fn tags(all: &[(Tag, usize)]) -> impl Iterator<Item = (&str, usize)> {
    all.iter().map(|(tag, count)| (tag.as_str(), *count))
}

fn kinds<'a>(l: Language, path: &str, title: &str, names: impl Iterator<Item = (&'a str, usize)>) -> Markup {
    let names: Vec<(&str, usize)> = names.collect();
    html! {
        @if !names.is_empty() {
            div {
                h2 { (title) }
                ul {
                    @for (name, count) in names {
                        li { a href={ (path) (name) } { (kind(l, name)) " " span.count { (count) } } }
                    }
                }
            }
        }
    }
}

fn shelf_title(l: Language, title: &ShelfTitle) -> &str {
    match title {
        ShelfTitle::Featured => l.pick("À la une", "Featured"),
        ShelfTitle::New => l.pick("Nouveautés", "New"),
        ShelfTitle::FollowedHere => l.pick("Vos choix faits ailleurs", "What you chose elsewhere"),
        ShelfTitle::All => l.pick("Toutes les applications", "All applications"),
        ShelfTitle::Category(name) => kind(l, name),
        ShelfTitle::Subject(tag) | ShelfTitle::Level(tag) => kind(l, tag.as_str()),
    }
}

/// One shelf, a part of it at a time.
pub(in crate::store) fn shelf_page(frame: &Frame<'_>, shelf: &Shelf<'_>, part: PageOf, path: &str) -> Markup {
    let l = frame.language;
    let title = shelf_title(l, &shelf.title);
    let content = html! {
        h1 { (title) }
        h2.hidden { (l.pick("Applications", "Applications")) }
        @if shelf.items.is_empty() { p { (l.pick("Il n’y a rien ici pour le moment.", "There is nothing here yet.")) } }
        (cards(frame, shelf.items.iter().copied()))
        @if part.pages > 1 {
            nav.parts aria-label=(l.pick("Suite de la liste", "More of the list")) {
                @if part.number > 1 {
                    a href={ (path) "?page=" (part.number - 1) } rel="prev" { (l.pick("Précédentes", "Previous")) }
                }
                span { (l.pick("Page ", "Page ")) (part.number) (l.pick(" sur ", " of ")) (part.pages) }
                @if part.number < part.pages {
                    a href={ (path) "?page=" (part.number + 1) } rel="next" { (l.pick("Suivantes", "Next")) }
                }
            }
        }
    };
    page(frame, Place::Discover, title, &content)
}
