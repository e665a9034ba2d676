//! What was found, what is installed, what is to be updated.

use maud::{Markup, html};

use super::super::view::{Frame, Happened, Item, Past, Standing};
use super::frame::{Place, csrf, page};
use super::parts::{CARDS, action, cards, icon, state};

/// What was found for a question.
pub(in crate::store) fn search(frame: &Frame<'_>, question: &str, found: &[&Item]) -> Markup {
    let l = frame.language;
    let title = l.pick("Recherche", "Search");
    let content = html! {
        h1 { (title) @if !question.is_empty() { " : « " (question) " »" } }
        div #results { (results(frame, question, found)) }
    };
    page(frame, Place::Discover, title, &content)
}

/// The part of that page that changes while somebody types.
pub(in crate::store) fn results(frame: &Frame<'_>, question: &str, found: &[&Item]) -> Markup {
    let l = frame.language;
    html! {
        p role="status" {
            @match (question.is_empty(), found.len()) {
                (true, _) => (l.pick("Tapez un nom, une matière ou une idée.", "Type a name, a subject or an idea.")),
                (false, 0) => {
                    (l.pick("Rien ne correspond à « ", "Nothing matches “")) (question) (l.pick(" ». ", "”. "))
                    (l.pick("Essayez un autre mot, ou parcourez les matières sur la page Découvrir.", "Try another word, or browse the subjects on the Discover page."))
                },
                (false, 1) => (l.pick("1 application trouvée", "1 application found")),
                (false, count) => { (count) (l.pick(" applications trouvées", " applications found")) },
            }
        }
        h2.hidden { (l.pick("Applications trouvées", "Applications found")) }
        (cards(frame, found.iter().copied().take(CARDS)))
    }
}

/// What is installed here, and what happened.
pub(in crate::store) fn mine(frame: &Frame<'_>, items: &[&Item], history: &[Past]) -> Markup {
    let l = frame.language;
    let title = l.pick("Mes applications", "My applications");
    let (here, coming): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| item.installed.is_some());
    let content = html! {
        h1 { (title) }
        section {
            h2 { (l.pick("Sur cet ordinateur", "On this computer")) }
            @if here.is_empty() { p { (l.pick("Rien n’est encore installé.", "Nothing is installed yet.")) } }
            (table(frame, &here))
        }
        @if !coming.is_empty() {
            section {
                h2 { (l.pick("En attente", "Pending")) }
                (cards(frame, coming.iter().copied()))
            }
        }
        section {
            h2 { (l.pick("Historique", "History")) }
            (past(frame, history))
        }
    };
    page(frame, Place::Mine, title, &content)
}

fn table(frame: &Frame<'_>, items: &[&Item]) -> Markup {
    let l = frame.language;
    html! {
        @if !items.is_empty() {
            div.scroll tabindex="0" role="region" aria-label=(l.pick("Applications installées", "Installed applications")) {
                table {
                    caption.hidden { (l.pick("Applications installées", "Installed applications")) }
                    thead {
                        tr {
                            th scope="col" { (l.pick("Application", "Application")) }
                            th scope="col" { (l.pick("Version", "Version")) }
                            th scope="col" { (l.pick("Taille", "Size")) }
                            th scope="col" { (l.pick("État", "State")) }
                            th scope="col" { (l.pick("Actions", "Actions")) }
                        }
                    }
                    tbody {
                        @for item in items {
                            tr {
                                th scope="row" { (icon(item, 32)) " " a href={ "/package/" (item.package) } { (l.of(&item.title)) } }
                                td { (item.version) }
                                td { (item.installed.as_ref().map_or(String::new(), |installed| l.bytes(installed.bytes))) }
                                td { (state(frame, &item.standing)) (until(frame, item)) }
                                td.do { (action(frame, item)) (remove(frame, item)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Until when something is to be done, or kept.
fn until(frame: &Frame<'_>, item: &Item) -> Markup {
    let l = frame.language;
    let deadline = match &item.standing {
        Standing::Coming { deadline, .. }
        | Standing::Newer { deadline, .. }
        | Standing::Leaving { deadline } => *deadline,
        _ => None,
    };
    html! {
        @if let Some(deadline) = deadline {
            p.detail { (l.pick("Au plus tard ", "By ")) (l.when(deadline, &frame.zone)) }
        }
        @if let Some(kept) = item.installed.as_ref().and_then(|installed| installed.kept_until) {
            p.detail { (l.pick("Version gardée jusqu’au ", "Version kept until ")) (l.day(kept, &frame.zone)) }
        }
    }
}

pub(super) fn remove(frame: &Frame<'_>, item: &Item) -> Markup {
    let l = frame.language;
    let text = l.pick("Retirer", "Remove");
    html! {
        @if item.installed.as_ref().is_some_and(|installed| installed.removable) && !matches!(item.standing, Standing::Busy(_)) {
            form method="post" action={ "/package/" (item.package) "/remove" } {
                (csrf(frame))
                button aria-label={ (text) " " (l.of(&item.title)) } { (text) }
            }
        }
    }
}

/// What happened here, the last first.
pub(super) fn past(frame: &Frame<'_>, history: &[Past]) -> Markup {
    let l = frame.language;
    html! {
        @if history.is_empty() { p { (l.pick("Rien pour le moment.", "Nothing yet.")) } }
        ol.past {
            @for Past { at, package, title, what } in history {
                li {
                    a href={ "/package/" (package) } { (l.of(title)) } " "
                    @match what {
                        Happened::Installed(version) => { (version) (l.pick(" installé", " installed")) },
                        Happened::Updated { from, to } => { (from) " → " (to) (l.pick(", mis à jour", ", updated")) },
                        Happened::WentBack { from, to } => { (from) " → " (to) (l.pick(", version précédente remise", ", went back")) },
                        Happened::Removed(version) => { (version) (l.pick(" retiré", " removed")) },
                    }
                    " " time datetime=(at) { (l.when(*at, &frame.zone)) }
                }
            }
        }
    }
}

/// What is newer than what is here.
pub(in crate::store) fn updates(frame: &Frame<'_>, items: &[&Item], kept: &[&Item]) -> Markup {
    let l = frame.language;
    let title = l.pick("Mises à jour", "Updates");
    let content = html! {
        h1 { (title) }
        @if items.is_empty() {
            p { (l.pick("Tout est à jour. Les mises à jour se font d’elles-mêmes, hors des cours.", "Everything is up to date. Updates happen by themselves, outside lessons.")) }
        } @else {
            p { (l.pick("Elles se font d’elles-mêmes, hors des cours. Vous pouvez aussi les lancer maintenant.", "They happen by themselves, outside lessons. You can also start them now.")) }
            h2.hidden { (l.pick("Applications à mettre à jour", "Applications to update")) }
            ul.cards {
                @for item in items {
                    li.card {
                        (icon(item, 48))
                        div.what {
                            h3 { a href={ "/package/" (item.package) } { (l.of(&item.title)) } }
                            (state(frame, &item.standing))
                            @if let Standing::Newer { version, .. } = &item.standing {
                                p { (item.version) " → " strong { (version) } ", " (l.bytes(item.download_bytes)) }
                            }
                            (until(frame, item))
                        }
                        div.do { (action(frame, item)) }
                    }
                }
            }
        }
        @if !kept.is_empty() {
            section {
                h2 { (l.pick("Gardées exprès", "Kept on purpose")) }
                (cards(frame, kept.iter().copied()))
            }
        }
    };
    page(frame, Place::Updates, title, &content)
}
