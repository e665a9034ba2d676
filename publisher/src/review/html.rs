//! A review as a page for a browser: one file, without scripts and without anything from elsewhere.
//!
//! French first, English second, each in an element that names its language, so that a reader can keep one of them:
//! the choice at the top is three radio buttons and a rule of the style sheet. Long lists fold.
//!
//! Threats and the defence for each:
//! - *A file name or title that becomes markup*: maud escapes every text; only the style sheet is put in as it is.
//! - *Markup that gets through all the same*: the page's policy lets nothing load and nothing run.
//! - *A release of 300,000 files*: a list ends after [`LISTED`] rows and says how many more there are.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use mirabelle_manifests::{EntryPath, Instant, Launcher, Text};
use mirabelle_terminal::bytes;

use super::behaviour::{Sort, Trait, TraitChange};
use super::launchers::{LauncherChange, command_line, environment};
use super::tree::{Item, ItemChange, Thing};
use super::{Change, InStore, Review, SbomChanges, visible};
use crate::sbom::Listed;

/// Rows of one list. A browser still scrolls this many smoothly; the JSON has them all.
const LISTED: usize = 2000;
/// A list of more rows is folded.
const OPEN: usize = 12;

const STYLE: &str = include_str!("page.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Sections: the anchor, and what it is called.
const SECTIONS: [(&str, &str, &str); 8] = [
    ("tailles", "Tailles", "Sizes"),
    ("fichiers", "Fichiers", "Files"),
    ("executables", "Droits d’exécution", "Permission to execute"),
    ("lanceurs", "Lanceurs et commandes", "Launchers and commands"),
    ("poste", "Ce qu’elle demande au poste et y fait", "What it needs of a workstation and does to it"),
    ("composants", "Composants", "Components"),
    ("magasin", "Dans le magasin", "In the store"),
    ("provenance", "Provenance et licence", "Origin and licence"),
];

/// The choice of languages, the first of them to begin with. The style sheet knows the other two.
const LANGUAGES: [(&str, &str); 3] =
    [("les-deux", "Français + English"), ("francais", "Français"), ("english", "English")];

/// The page.
pub(crate) fn render(review: &Review) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="fr" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (review.package) " " (review.version) " — Mirabelle" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#contenu" { (both("Aller au contenu", "Skip to content")) }
                (header(review))
                div.columns {
                    nav aria-label="Sommaire · Contents" {
                        ol {
                            @for (anchor, fr, en) in SECTIONS {
                                li { a href={ "#" (anchor) } { (both(fr, en)) } }
                            }
                        }
                    }
                    main id="contenu" {
                        (attention(review))
                        (section(0, &sizes(review)))
                        (section(1, &files(review)))
                        (section(2, &executables(review)))
                        (section(3, &launchers(review)))
                        (section(4, &behaviour(review)))
                        (section(5, &components(review.sbom.as_ref())))
                        (section(6, &in_store(review.store.as_ref())))
                        (section(7, &origin(review)))
                    }
                }
                footer {
                    p { (both(
                        "Cette page compare ce qui est proposé à ce qui est déjà approuvé. La signature de qui approuve \
                         porte sur l’empreinte de la version, donnée ci-dessus.",
                        "This page compares what is proposed with what is approved already. The approver’s signature \
                         covers the digest of the release, given above.",
                    )) }
                }
            }
        }
    };
    page.into_string()
}

/// A text of ours in both languages.
fn both(fr: &str, en: &str) -> Markup {
    html! { span lang="fr" { (fr) } " " span lang="en" { (en) } }
}

/// A size as each language writes it; where both are shown, one is enough.
fn size(count: u64) -> Markup {
    let english = bytes(count);
    let french = english.replace('.', ",").replace('B', "o").replace(' ', "\u{a0}");
    html! { span.size lang="fr" { (french) } span.size lang="en" { (english) } }
}

/// A text of the package's.
fn theirs(text: &str) -> Markup {
    html! { bdi { (visible(text)) } }
}

/// A text of the package's in both languages, said once when it is the same.
fn theirs_in_both(text: &Text) -> Markup {
    html! {
        @if text.fr == text.en { (theirs(&text.fr)) }
        @else { span lang="fr" { (theirs(&text.fr)) } " " span lang="en" { (theirs(&text.en)) } }
    }
}

/// An instant, to the second.
fn moment(instant: Instant) -> Markup {
    let text = format!("{instant:.0}");
    html! { time datetime=(text) { (text.replace('T', " ").replace('Z', " UTC")) } }
}

fn code(text: &str) -> Markup {
    html! { code { (theirs(text)) } }
}

fn section(number: usize, content: &Markup) -> Markup {
    let (anchor, fr, en) = SECTIONS[number];
    html! {
        section id=(anchor) aria-labelledby={ (anchor) "-titre" } {
            h2 id={ (anchor) "-titre" } { (both(fr, en)) }
            (content)
        }
    }
}

fn header(review: &Review) -> Markup {
    html! {
        header {
            fieldset.language {
                legend { (both("Langue", "Language")) }
                @for (id, name) in LANGUAGES {
                    label { input type="radio" name="langue" id=(id) checked[id == LANGUAGES[0].0]; " " (name) }
                }
            }
            p.kicker { (both("Version à approuver", "Release to approve")) }
            h1 {
                (theirs_in_both(&review.title)) " " span.version { (review.version) }
            }
            p { (theirs_in_both(&review.summary)) }
            p.identity {
                code { (review.package) "@" (review.version) } " · " (review.platform) " · "
                (both("séquence", "sequence")) " " (review.sequence)
            }
            p {
                @match &review.previous {
                    Some(previous) => {
                        span lang="fr" { "Comparée à la version " strong { (previous.version) } ", déjà approuvée." } " "
                        span lang="en" { "Compared with release " strong { (previous.version) } ", approved before." }
                    },
                    None => (both("Première version de ce logiciel.", "First release of this package.")),
                }
            }
        }
    }
}

fn attention(review: &Review) -> Markup {
    html! {
        @if review.attention.is_empty() {
            section.calm aria-label="À regarder · To look at" {
                p { (both("Rien ne demande une attention particulière.", "Nothing asks for particular attention.")) }
            }
        } @else {
            section.attention aria-labelledby="attention-titre" {
                h2 id="attention-titre" { (both("À regarder de près", "To look at closely")) }
                ul {
                    @for remark in &review.attention {
                        @let (fr, en) = remark.words();
                        li { (both(fr, en)) }
                    }
                }
            }
        }
    }
}

fn sizes(review: &Review) -> Markup {
    let card = |fr, en, change: &Change<u64>| {
        html! {
            div.card {
                dt { (both(fr, en)) }
                dd {
                    strong { (size(change.now)) }
                    @if let Some(before) = change.before {
                        small { (both("avant :", "before:")) " " (size(before)) " " (difference(before, change.now)) }
                    }
                }
            }
        }
    };
    html! {
        dl.cards {
            div.card.main {
                dt { (both("Sur la liaison du collège", "On the college’s link")) }
                dd {
                    strong { (size(review.sizes.wan)) }
                    small { (both(
                        "au plus, pour un nœud qui a la version précédente",
                        "at most, for a node that holds the release before",
                    )) }
                }
            }
            (card("Téléchargement complet, au plus", "Whole download, at most", &review.sizes.download))
            (card("Une fois installée", "Installed", &review.sizes.installed))
        }
    }
}

fn difference(before: u64, now: u64) -> Markup {
    html! {
        @if now > before { "(+\u{a0}" (size(now - before)) ")" }
        @else if now < before { "(−\u{a0}" (size(before - now)) ")" }
        @else { "(=)" }
    }
}

/// A list that folds when it is long: its heading, how many, and its rows.
fn list<T>(
    class: &str,
    title: (&str, &str),
    note: &Markup,
    rows: &[T],
    row: impl Fn(&T) -> Markup,
) -> Markup {
    html! {
        @if rows.is_empty() {
            p.none { (both(title.0, title.1)) " " span.count { "0" } }
        } @else {
            details class=(class) open[rows.len() <= OPEN] {
                summary { (both(title.0, title.1)) " " span.count { (rows.len()) } " " (note) }
                table {
                    tbody { @for item in rows.iter().take(LISTED) { (row(item)) } }
                }
                @if rows.len() > LISTED {
                    @let more = rows.len() - LISTED;
                    p { "… " (more) " " (both("de plus ; --json les donne tous", "more; --json has them all")) }
                }
            }
        }
    }
}

fn files(review: &Review) -> Markup {
    let tree = &review.tree;
    let item = |item: &Item| html! { tr { th scope="row" { (code(item.path.as_str())) } td { (thing(&item.thing)) } } };
    let change = |change: &ItemChange| {
        html! {
            tr {
                th scope="row" { (code(change.path.as_str())) }
                td {
                    @if alike(&change.before, &change.now) {
                        (thing(&change.now)) " " small { (both("autre contenu", "other content")) }
                    } @else {
                        del { (thing(&change.before)) } " → " ins { (thing(&change.now)) }
                    }
                }
            }
        }
    };
    html! {
        (list("added", ("Ajoutés", "Added"), &size(tree.added_bytes), &tree.added, item))
        (list("removed", ("Retirés", "Removed"), &size(tree.removed_bytes), &tree.removed, item))
        (list("changed", ("Modifiés", "Changed"), &size(tree.changed_bytes), &tree.changed, change))
        p.none { (both("Inchangés", "Unchanged")) " " span.count { (tree.unchanged) } }
    }
}

/// True when only the content differs.
fn alike(before: &Thing, now: &Thing) -> bool {
    match (before, now) {
        (
            Thing::File { size, executable, .. },
            Thing::File { size: size_now, executable: executable_now, .. },
        ) => size == size_now && executable == executable_now,
        _ => false,
    }
}

fn thing(thing: &Thing) -> Markup {
    match thing {
        Thing::File { size: count, executable, .. } => html! {
            (size(*count))
            @if *executable { " " span.tag { (both("exécutable", "executable")) } }
        },
        Thing::Link { target } => html! { (both("lien vers", "link to")) " " (code(target)) },
        Thing::Directory => both("répertoire vide", "empty directory"),
    }
}

fn executables(review: &Review) -> Markup {
    let row = |path: &EntryPath| html! { tr { th scope="row" { (code(path.as_str())) } } };
    let tree = &review.tree;
    let (became, no_longer) = (&tree.became_executable, &tree.no_longer_executable);
    html! {
        (list("changed", ("Deviennent exécutables", "Become executable"), &html! {}, became, row))
        (list("removed", ("Ne sont plus exécutables", "No longer executable"), &html! {}, no_longer, row))
        p.none { (both(
            "set-uid : refusé par le format. Une version ne peut porter que les droits 0644 et 0755.",
            "set-uid: refused by the format. A release can only carry the modes 0644 and 0755.",
        )) }
    }
}

fn launchers(review: &Review) -> Markup {
    let changes = &review.launchers;
    let row = |launcher: &Launcher| {
        html! { tr { th scope="row" { (code(launcher.name.as_str())) } td { (starts(launcher)) } } }
    };
    let change = |launcher: &LauncherChange| {
        html! {
            @for field in &launcher.fields {
                @let (fr, en) = field.field.words();
                tr {
                    th scope="row" { (code(launcher.name.as_str())) " " small { (both(fr, en)) } }
                    td { del { (code(&field.before)) } br; ins { (code(&field.now)) } }
                }
            }
        }
    };
    html! {
        (list("added", ("Ajoutés", "Added"), &html! {}, &changes.added, row))
        (list("removed", ("Retirés", "Removed"), &html! {}, &changes.removed, row))
        (list("changed", ("Modifiés", "Changed"), &html! {}, &changes.changed, change))
        (list("same", ("Inchangés", "Unchanged"), &html! {}, &changes.unchanged, row))
    }
}

fn starts(launcher: &Launcher) -> Markup {
    let set = environment(launcher);
    html! {
        (code(&command_line(&launcher.command)))
        @if !set.is_empty() { br; small { (both("avec", "with")) " " (code(&set)) } }
    }
}

fn behaviour(review: &Review) -> Markup {
    let changes = &review.behaviour;
    let what = |sort: Sort, of: &str| {
        let (fr, en) = sort.words();
        html! { th scope="row" { (both(fr, en)) " " @if !of.is_empty() { (code(of)) } } }
    };
    let row = |one: &Trait| html! { tr { (what(one.sort, &one.of)) td { (lines(&one.says)) } } };
    let change = |change: &TraitChange| {
        html! {
            tr {
                (what(change.sort, &change.of))
                td { del { (lines(&change.before)) } br; ins { (lines(&change.now)) } }
            }
        }
    };
    html! {
        (list("added", ("Ajoutés", "Added"), &html! {}, &changes.added, row))
        (list("removed", ("Retirés", "Removed"), &html! {}, &changes.removed, row))
        (list("changed", ("Modifiés", "Changed"), &html! {}, &changes.changed, change))
        (list("same", ("Inchangés", "Unchanged"), &html! {}, &changes.unchanged, row))
    }
}

/// A text of the package's that may have several lines.
fn lines(text: &str) -> Markup {
    html! { @for (number, line) in text.lines().enumerate() { @if number > 0 { br; } (code(line)) } }
}

fn components(sbom: Option<&SbomChanges>) -> Markup {
    let Some(sbom) = sbom else {
        return html! { p { (both("Signée sans liste de composants (SBOM).", "Signed without an SBOM.")) } };
    };
    let changes = &sbom.changes;
    let row = |(identity, listed): &(&String, &Listed)| {
        html! { tr { th scope="row" { (code(identity)) } td { (theirs(&listed.to_string())) } } }
    };
    let change = |(identity, (before, now)): &(&String, &(Listed, Listed))| {
        html! {
            tr {
                th scope="row" { (code(identity)) }
                td { del { (theirs(&before.to_string())) } " → " ins { (theirs(&now.to_string())) } }
            }
        }
    };
    html! {
        (list("added", ("Ajoutés", "Added"), &html! {}, &rows(&changes.added), row))
        (list("removed", ("Retirés", "Removed"), &html! {}, &rows(&changes.removed), row))
        (list("changed", ("Modifiés", "Changed"), &html! {}, &rows(&changes.changed), change))
        p.none { (both("Inchangés", "Unchanged")) " " span.count { (changes.unchanged) } }
        p.none {
            (both("Liste (SBOM CycloneDX), empreinte", "List (CycloneDX SBOM), digest")) " "
            code { (sbom.sha256) }
        }
    }
}

/// What teachers and pupils will read of it.
fn in_store(store: Option<&InStore>) -> Markup {
    let Some(InStore { showcase, page, changed }) = store else {
        return html! { p { (both("Nom et résumé seuls.", "Its name and summary alone.")) } };
    };
    let words = showcase.keywords.iter().map(String::as_str);
    let words =
        words.chain(showcase.subjects.iter().chain(&showcase.levels).map(mirabelle_manifests::Tag::as_str));
    let words: Vec<&str> = words.collect();
    html! {
        @if *changed { p { strong { (both("Autre chose que la version d’avant.", "Other than the release before.")) } } }
        dl.facts {
            @if let Some(author) = &page.author { dt { (both("Éditeur", "Publisher")) } dd { (theirs(author)) } }
            @if let Some(homepage) = &page.homepage { dt { (both("Site", "Web site")) } dd { (theirs(homepage)) } }
            @if !words.is_empty() { dt { (both("Mots", "Words")) } dd { (theirs(&words.join(", "))) } }
            @for (title, text) in [(both("Description", "Description"), &page.description), (both("Nouveautés", "News"), &page.news)] {
                @if let Some(text) = text { dt { (title) } dd { p { (lines(&text.fr)) } p { (lines(&text.en)) } } }
            }
            @for shot in &page.screenshots {
                dt { (both("Capture", "Screenshot")) }
                dd { (theirs(&shot.caption.fr)) " · " (theirs(&shot.caption.en)) " " code { (shot.image.sha256) } }
            }
        }
    }
}

fn rows<V>(map: &BTreeMap<String, V>) -> Vec<(&String, &V)> {
    map.iter().collect()
}

fn origin(review: &Review) -> Markup {
    let signer = &review.packager;
    html! {
        dl.facts {
            dt { (both("Licence", "Licence")) }
            dd {
                @match &review.licence.before {
                    Some(before) if review.licence.changed() => {
                        del { (theirs(before)) } " → " ins { (theirs(&review.licence.now)) }
                    },
                    _ => (theirs(&review.licence.now)),
                }
            }
            dt { (both("Préparée le", "Packaged on")) }
            dd { (moment(review.date)) }
            dt { (both("Avec la clé", "With the key")) }
            dd { code { (signer.key) } }
            dt { (both("Autorisée pour", "Authorised for")) }
            dd { @for pattern in &signer.packages { (code(pattern)) " " } }
            dt { (both("Autorisation", "Authorisation")) }
            dd {
                (moment(signer.from)) " → " strong { (moment(signer.until)) }
                @if !signer.authorised_today { " " span.tag { (both("pas aujourd’hui", "not today")) } }
            }
            dt { (both("Empreinte de la version", "Digest of the release")) }
            dd { code { (review.release) } }
            @if let Some(previous) = &review.previous {
                dt { (both("Version précédente", "Release before")) }
                dd {
                    (previous.version) ", " (both("séquence", "sequence")) " " (previous.sequence) ", "
                    (moment(previous.date))
                    br; code { (previous.release) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::sample;

    #[test]
    fn nothing_of_a_package_becomes_markup() {
        let page = render(&sample::review());
        for markup in ["<script", "<img", "onerror=\"", "</style>\"", "alert(1)\">"] {
            assert!(!page.contains(markup), "`{markup}` is in the page");
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;\\u{202e}"));
        assert!(!page.contains('\u{202e}'));
        assert_eq!(page.matches("</style>").count(), 1);
    }

    #[test]
    fn loads_nothing_and_runs_nothing() {
        let page = render(&sample::review());
        assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'"));
        for way_out in ["src=\"", "url(", "@import", "http://", "https://", "<link", "<iframe", "<form"] {
            assert!(!page.contains(way_out), "`{way_out}` is in the page");
        }
    }

    #[test]
    fn folds_long_lists_and_names_its_languages() {
        let page = render(&sample::review());
        assert!(page.contains("<details class=\"added\"><summary>"), "40 files are folded");
        assert!(page.contains("<details class=\"removed\" open><summary>"), "one is not");
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"fr\">"));
        for words in ["23\u{a0}o", "23 B", "la licence change", "the licence changes", "set-uid"] {
            assert!(page.contains(words), "`{words}` is not in the page");
        }
        // What is the same in both languages is said once, and stays whichever is chosen.
        assert!(page.contains("<h1><bdi>"));
        // Headings in order, without a gap.
        assert_eq!(page.matches("<h1").count(), 1);
        assert_eq!(page.matches("<h2").count(), SECTIONS.len() + 1);
    }
}
