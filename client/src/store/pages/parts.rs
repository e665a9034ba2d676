//! What several pages show: a card, how something stands, what may be done about it.

use maud::{Markup, html};

use super::super::view::{Frame, Item, Phase, SignedIn, Standing, TaskVerb};
use super::super::words::percent;
use super::frame::csrf;

/// Cards of a list that are shown together.
pub(super) const CARDS: usize = 48;

/// A sign that goes with a word; who cannot see it misses nothing.
pub(super) fn symbol(name: &str) -> Markup {
    let path = match name {
        "done" => "M4 12l5 5L20 6",
        "add" => "M12 4v16M4 12h16",
        "wait" => "M12 6v6l4 2M12 3a9 9 0 1 0 .01 0",
        "lock" => "M6 11h12v9H6zM9 11V8a3 3 0 0 1 6 0v3",
        "newer" => "M12 20V5M6 11l6-6 6 6",
        "stop" => "M5.6 5.6l12.8 12.8M12 3a9 9 0 1 0 .01 0",
        "away" => "M6 12h12",
        _ => "M12 3a9 9 0 1 0 .01 0",
    };
    html! {
        svg.symbol viewBox="0 0 24 24" width="18" height="18" aria-hidden="true" focusable="false" {
            path d=(path) fill="none" stroke="currentColor" stroke-width="2.5" stroke-linecap="round" stroke-linejoin="round" {}
        }
    }
}

/// How it stands: a sign, a word, and a class that colours both.
pub(super) fn state(frame: &Frame<'_>, standing: &Standing) -> Markup {
    let (class, sign) = match standing {
        Standing::Offered => ("offered", "add"),
        Standing::ForTeachers => ("locked", "lock"),
        Standing::Busy(_) | Standing::Coming { .. } => ("busy", "wait"),
        Standing::Here => ("here", "done"),
        Standing::Newer { .. } => ("newer", "newer"),
        Standing::Leaving { .. } => ("busy", "away"),
        Standing::Restart => ("newer", "wait"),
        Standing::Blocked(_) => ("blocked", "stop"),
    };
    html! { p.state.(class) { (symbol(sign)) span { (frame.language.standing(standing)) } } }
}

/// The one thing to do about it, if there is one.
pub(super) fn action(frame: &Frame<'_>, item: &Item) -> Markup {
    let l = frame.language;
    let name = l.of(&item.title);
    let post = |what: &str, text: &str, class: &str| {
        html! {
            form method="post" action={ "/package/" (item.package) "/" (what) } {
                (csrf(frame))
                button class=(class) aria-label={ (text) " " (name) } { (text) }
            }
        }
    };
    html! {
        @match &item.standing {
            Standing::Offered => (post("install", l.pick("Installer", "Install"), "primary")),
            Standing::ForTeachers if frame.can_sign_in && frame.person.how == SignedIn::No => {
                a.button href="/sign-in" aria-label={ (l.pick("Ouvrir ma session pour installer ", "Sign in to install ")) (name) } {
                    (l.pick("Ouvrir ma session", "Sign in"))
                }
            },
            Standing::Newer { .. } => (post("update", l.pick("Mettre à jour", "Update"), "primary")),
            Standing::Coming { .. } => (post("install", l.pick("Installer maintenant", "Install now"), "primary")),
            Standing::Busy(task) => {
                a.button href="/activity" aria-label={ (l.pick("Voir l’avancement de ", "See the progress of ")) (name) } { (l.pick("Voir l’avancement", "See the progress")) }
                @if task.own && task.ended.is_none() { (cancel(frame, task.id, name)) }
            },
            Standing::Here if item.installed.as_ref().is_some_and(|installed| installed.opens) => {
                (post("open", l.pick("Ouvrir", "Open"), "primary"))
            },
            _ => {},
        }
    }
}

pub(super) fn cancel(frame: &Frame<'_>, id: u64, name: &str) -> Markup {
    let text = frame.language.pick("Annuler", "Cancel");
    html! {
        form method="post" action={ "/activity/" (id) "/cancel" } {
            (csrf(frame))
            button aria-label={ (text) " " (name) } { (text) }
        }
    }
}

/// A picture that says nothing that the title beside it does not.
pub(super) fn icon(item: &Item, size: u32) -> Markup {
    html! {
        @match item.icon {
            Some(icon) => img.icon src={ "/media/" (icon) } alt="" width=(size) height=(size) loading="lazy";
            // Its first letter stands for it.
            None => span.icon.letter aria-hidden="true" { (item.title.fr.chars().next().unwrap_or('?').to_uppercase()) }
        }
    }
}

/// A package in a list.
pub(super) fn card(frame: &Frame<'_>, item: &Item) -> Markup {
    let l = frame.language;
    html! {
        li.card {
            (icon(item, 48))
            div.what {
                h3 { a href={ "/package/" (item.package) } { (l.of(&item.title)) } }
                p.summary { (l.of(&item.summary)) }
                (state(frame, &item.standing))
                @if item.followed {
                    p.followed { (l.pick("Choisi sur un autre ordinateur", "Chosen on another computer")) }
                }
                p.size { (l.bytes(item.download_bytes)) }
            }
            div.do { (action(frame, item)) }
        }
    }
}

/// Packages as cards; what does not fit is behind a link.
pub(super) fn cards<'i>(frame: &Frame<'_>, items: impl IntoIterator<Item = &'i Item>) -> Markup {
    html! { ul.cards { @for item in items { (card(frame, item)) } } }
}

/// How far something is, for the eye and for whoever does not see it.
pub(super) fn progress(frame: &Frame<'_>, phase: &Phase, verb: TaskVerb) -> Markup {
    let l = frame.language;
    html! {
        @match phase {
            Phase::Fetching { done, total, seconds_left } => {
                progress max="100" value=(percent(*done, *total)) aria-label=(l.pick("Téléchargement", "Download")) { (percent(*done, *total)) " %" }
                p.detail {
                    (l.bytes(*done)) (l.pick(" sur ", " of ")) (l.bytes(*total))
                    @if let Some(seconds) = seconds_left { ", " (l.pick("encore ", "")) (l.duration(*seconds)) (l.pick("", " left")) }
                }
            },
            Phase::Installing => { progress aria-label=(l.verb(verb)) {} },
            _ => {},
        }
    }
}

/// A text of several paragraphs, which blank lines divide.
pub(super) fn paragraphs(text: &str) -> Markup {
    let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    html! { @for paragraph in paragraphs { p { (paragraph) } } }
}
