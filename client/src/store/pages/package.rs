//! A package's own page: what it is, how it stands and why, what it costs, what may be done.

use jiff::ToSpan;
use maud::{Markup, html};

use super::super::view::{Cost, Frame, Installed, Item, PackageView, Standing};
use super::super::words::kind;
use super::frame::{Place, csrf, page};
use super::lists::{past, remove};
use super::parts::{action, icon, paragraphs, state};

pub(in crate::store) fn package(frame: &Frame<'_>, shown: &PackageView<'_>) -> Markup {
    let (l, item) = (frame.language, shown.item);
    let title = l.of(&item.title);
    let content = html! {
        article.package {
            div.head {
                (icon(item, 96))
                div {
                    h1 { (title) }
                    @if let Some(author) = &shown.said.author { p.author { (author) } }
                    p.lead { (l.of(&item.summary)) }
                    (state(frame, &item.standing))
                    div.do { (action(frame, item)) (remove(frame, item)) }
                    (cost(frame, shown))
                }
            }
            (why(frame, shown))
            @if !shown.said.screenshots.is_empty() {
                section {
                    h2 { (l.pick("Captures d’écran", "Screenshots")) }
                    div.shots tabindex="0" role="region" aria-label=(l.pick("Captures d’écran", "Screenshots")) {
                        @for shot in &shown.said.screenshots {
                            figure {
                                img src={ "/media/" (shot.image.sha256) } alt=(l.of(&shot.caption)) loading="lazy" width="480" height="300";
                                figcaption { (l.of(&shot.caption)) }
                            }
                        }
                    }
                }
            }
            @if let Some(description) = &shown.said.description {
                section { h2 { (l.pick("Description", "Description")) } (paragraphs(l.of(description))) }
            }
            @if let Some(news) = &shown.said.news {
                section { h2 { (l.pick("Nouveautés de cette version", "What is new in this version")) } (paragraphs(l.of(news))) }
            }
            (facts(frame, shown))
            @if let Some(installed) = &item.installed { (versions(frame, shown, installed)) }
            @if !shown.history.is_empty() {
                section { h2 { (l.pick("Historique", "History")) } (past(frame, &shown.history)) }
            }
        }
    };
    page(frame, Place::Elsewhere, title, &content)
}

/// What it costs to have it, as far as that is known.
fn cost(frame: &Frame<'_>, shown: &PackageView<'_>) -> Markup {
    let l = frame.language;
    let comes = matches!(
        shown.item.standing,
        Standing::Offered | Standing::ForTeachers | Standing::Newer { .. } | Standing::Coming { .. }
    );
    html! {
        @if comes {
            p.detail {
                (l.bytes(shown.item.download_bytes)) (l.pick(" à télécharger", " to download"))
                @match shown.cost {
                    Some(Cost { in_college: true, seconds, .. }) => {
                        (l.pick(", déjà dans le collège", ", in the college already"))
                        @if let Some(seconds) = seconds { " : " (l.duration(seconds)) }
                    },
                    Some(Cost { in_college: false, wan_bytes, seconds }) => {
                        (l.pick(", dont ", ", of which ")) (l.bytes(wan_bytes)) (l.pick(" par la liaison du collège", " over the college’s link"))
                        @if let Some(seconds) = seconds { " : " (l.duration(seconds)) }
                    },
                    None => {},
                }
            }
        }
    }
}

/// Why it stands as it does, and who can do something about it.
fn why(frame: &Frame<'_>, shown: &PackageView<'_>) -> Markup {
    let (l, zone) = (frame.language, &frame.zone);
    let decided = shown.reasons.last();
    html! {
        @if let Standing::Blocked(reason) = &shown.item.standing {
            section.why {
                h2 { (l.pick("Pourquoi ?", "Why?")) }
                p { (l.reason(reason, zone)) }
                p { strong { (l.who_can_unblock(reason)) } }
            }
        } @else if shown.item.standing == Standing::ForTeachers {
            @if let Some(reason) = decided {
                section.why {
                    h2 { (l.pick("Pourquoi ?", "Why?")) }
                    p { (l.reason(reason, zone)) }
                    p { strong { (l.who_can_unblock(reason)) } }
                }
            }
        }
        @if !shown.reasons.is_empty() {
            details {
                summary { (l.pick("Comment cela a été décidé", "How this was decided")) }
                ol { @for reason in shown.reasons { li { (l.reason(reason, zone)) } } }
            }
        }
    }
}

fn facts(frame: &Frame<'_>, shown: &PackageView<'_>) -> Markup {
    let (l, item) = (frame.language, shown.item);
    let names =
        |all: &mut dyn Iterator<Item = &str>| all.map(|name| kind(l, name)).collect::<Vec<_>>().join(", ");
    let categories = names(&mut item.categories.iter().map(String::as_str));
    let subjects = names(&mut item.subjects.iter().map(mirabelle_manifests::Tag::as_str));
    let levels = names(&mut item.levels.iter().map(mirabelle_manifests::Tag::as_str));
    html! {
        section {
            h2 { (l.pick("Informations", "Information")) }
            dl.facts {
                dt { (l.pick("Version", "Version")) } dd { (item.version) }
                dt { (l.pick("Qui peut l’installer", "Who may install it")) } dd { (l.who(item.who)) }
                dt { (l.pick("Taille une fois installé", "Size once installed")) } dd { (l.bytes(item.installed_bytes)) }
                dt { (l.pick("Licence", "Licence")) } dd { (item.licence) }
                @if let Some(author) = &shown.said.author { dt { (l.pick("Éditeur", "Publisher")) } dd { (author) } }
                dt { (l.pick("Approbation", "Approval")) }
                dd {
                    (l.pick("Approuvé par le rectorat", "Approved by the rectorat"))
                    @if let Some(approved) = item.approved { (l.pick(" le ", " on ")) (l.day(approved, &frame.zone)) }
                    (l.pick(", signature vérifiée", ", signature verified"))
                }
                @if !categories.is_empty() { dt { (l.pick("Catégorie", "Category")) } dd { (categories) } }
                @if !subjects.is_empty() { dt { (l.pick("Matières", "Subjects")) } dd { (subjects) } }
                @if !levels.is_empty() { dt { (l.pick("Niveaux", "Levels")) } dd { (levels) } }
                @if let Some(homepage) = &shown.said.homepage {
                    dt { (l.pick("Site", "Web site")) }
                    dd { a href=(homepage) rel="noreferrer noopener external" { (homepage) } }
                }
            }
        }
    }
}

/// Keeping a version on purpose, and going back to the one before.
fn versions(frame: &Frame<'_>, shown: &PackageView<'_>, installed: &Installed) -> Markup {
    let (l, item) = (frame.language, shown.item);
    let day = |days: i32| {
        let at = frame.now.to_zoned_datetime(frame.zone.clone());
        at.checked_add(days.days()).map(|at| at.date().to_string()).unwrap_or_default()
    };
    let until = |id: &str| {
        html! {
            label for=(id) { (l.pick("Jusqu’au", "Until")) }
            input type="date" id=(id) name="until" required min=(day(1)) max=(day(365)) value=(day(30));
        }
    };
    let may = may_keep(frame, item);
    html! {
        section {
            h2 { (l.pick("Garder une version", "Keep a version")) }
            @if let Some(kept) = installed.kept_until {
                p {
                    (l.pick("La version ", "Version ")) strong { (installed.version) } (l.pick(" est gardée jusqu’au ", " is kept until ")) (l.day(kept, &frame.zone)) ". "
                    (l.pick("Les mises à jour reprennent ensuite toutes seules.", "Updates then go on by themselves."))
                }
                form method="post" action={ "/package/" (item.package) "/release" } {
                    (csrf(frame))
                    button { (l.pick("Reprendre les mises à jour maintenant", "Go on with updates now")) }
                }
            } @else if may {
                p { (l.pick("Pour un cours préparé avec une version précise. Pendant ce temps, les corrections de sécurité des versions suivantes ne viennent pas.", "For a lesson that was prepared with a certain version. Meanwhile the security fixes of later versions do not come.")) }
                div.forms {
                    @if shown.newest.as_ref() == Some(&installed.version) {
                        p.detail { (l.pick("La version installée est la plus récente : elle reste en place tant qu’aucune autre n’est approuvée.", "The installed version is the newest: it stays as long as no other is approved.")) }
                    } @else {
                        form method="post" action={ "/package/" (item.package) "/keep" } {
                            (csrf(frame)) (until("keep-until"))
                            button { (l.pick("Garder la version ", "Keep version ")) (installed.version) }
                        }
                    }
                    @if let Some((_, previous)) = &installed.previous {
                        form method="post" action={ "/package/" (item.package) "/back" } {
                            (csrf(frame)) (until("back-until"))
                            button { (l.pick("Revenir à la version ", "Go back to version ")) (previous) }
                        }
                    }
                }
            } @else {
                p { (l.pick("Un enseignant peut garder une version pour un cours en ouvrant sa session.", "A teacher can keep a version for a lesson by signing in.")) }
            }
        }
    }
}

fn may_keep(frame: &Frame<'_>, item: &Item) -> bool {
    frame.person.asker != mirabelle_manifests::Asker::Anyone && !matches!(item.standing, Standing::Busy(_))
}
