//! What is around every page: where one is, who is there, and the way to everything else.

use maud::{DOCTYPE, Markup, html};

use super::super::view::{Frame, Language, SignedIn};

/// Which page of the navigation this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Discover,
    Mine,
    Updates,
    Activity,
    Rooms,
    Elsewhere,
}

/// A page with everything around it.
pub(super) fn page(frame: &Frame<'_>, place: Place, title: &str, content: &Markup) -> Markup {
    let l = frame.language;
    html! {
        (DOCTYPE)
        html lang=(l.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – " (l.pick("Magasin du collège", "The college’s store")) }
                link rel="stylesheet" href="/assets/store.css";
                link rel="icon" href="/assets/store.svg" type="image/svg+xml";
                script src="/assets/store.js" defer {}
                @if place == Place::Activity { noscript { meta http-equiv="refresh" content="5"; } }
            }
            body {
                a.skip href="#content" { (l.pick("Aller au contenu", "Skip to the content")) }
                (header(frame, place))
                main #content tabindex="-1" {
                    (notices(frame))
                    (content)
                }
                (footer(frame))
            }
        }
    }
}

fn header(frame: &Frame<'_>, place: Place) -> Markup {
    let l = frame.language;
    let entry = |own: Place, href: &str, text: &str, count: usize| {
        html! {
            li {
                a href=(href) aria-current=[(own == place).then_some("page")] {
                    (text)
                    @if count > 0 { " " span.count { (count) } }
                }
            }
        }
    };
    html! {
        header.top {
            a.brand href="/" {
                img src="/assets/store.svg" alt="" width="28" height="28";
                span { (l.pick("Magasin", "Store")) }
            }
            form.search role="search" action="/search" method="get" {
                label.hidden for="q" { (l.pick("Chercher une application", "Search for an application")) }
                input #q type="search" name="q" maxlength="80" autocomplete="off"
                    placeholder=(l.pick("Chercher une application", "Search for an application"));
                button { (l.pick("Chercher", "Search")) }
            }
            (who(frame))
            nav aria-label=(l.pick("Rubriques", "Sections")) {
                ul {
                    (entry(Place::Discover, "/", l.pick("Découvrir", "Discover"), 0))
                    (entry(Place::Mine, "/mine", l.pick("Mes applications", "My applications"), 0))
                    (entry(Place::Updates, "/updates", l.pick("Mises à jour", "Updates"), frame.updates))
                    (entry(Place::Activity, "/activity", l.pick("Activité", "Activity"), frame.active))
                    @if frame.can_sign_in { (entry(Place::Rooms, "/rooms", l.pick("Salles", "Rooms"), 0)) }
                }
            }
        }
    }
}

fn who(frame: &Frame<'_>) -> Markup {
    let l = frame.language;
    let sign_out = |name: &str| {
        html! {
            a href="/me" { (name) }
            form method="post" action="/sign-out" {
                (csrf(frame))
                button.quiet { (l.pick("Fermer la session", "Sign out")) }
            }
        }
    };
    html! {
        div.who {
            @match &frame.person.how {
                SignedIn::Provider { name: Some(name), .. } => (sign_out(name)),
                SignedIn::Provider { .. } | SignedIn::Code { .. } => (sign_out(l.pick("Ma session", "My session"))),
                SignedIn::Account => span { (l.asker(frame.person.asker)) },
                SignedIn::No => {}
            }
            @if frame.can_sign_in && matches!(frame.person.how, SignedIn::No | SignedIn::Account) {
                a.button href="/sign-in" { (l.pick("Ouvrir ma session", "Sign in")) }
            }
            form method="post" action="/language" {
                (csrf(frame))
                input type="hidden" name="back" value=(frame.path);
                input type="hidden" name="lang" value=(l.other().code());
                button.quiet lang=(l.other().code()) {
                    (match l { Language::French => "English", Language::English => "Français" })
                }
            }
        }
    }
}

fn notices(frame: &Frame<'_>) -> Markup {
    let l = frame.language;
    html! {
        div role="status" {
            @if let Some(notice) = &frame.notice {
                p.notice { (super::parts::symbol("done")) (l.notice(notice, &frame.zone)) }
            }
        }
        @if let Some(since) = frame.silent_since {
            p.warning {
                (super::parts::symbol("wait"))
                (l.pick("Le catalogue n’a pas été renouvelé depuis ", "The catalogue has not been renewed since "))
                (l.when(since, &frame.zone)) ". "
                (l.pick("Ce qui est affiché date d’alors.", "What is shown is of then."))
            }
        }
    }
}

fn footer(frame: &Frame<'_>) -> Markup {
    let l = frame.language;
    html! {
        footer {
            p {
                (l.pick("Ordinateur ", "Computer ")) strong { (frame.machine) }
                (l.pick(", collège ", ", college ")) strong { (frame.college) }
            }
            p {
                a href="/about" { (l.pick("Accessibilité : conformité et aide", "Accessibility: conformity and help")) }
            }
        }
    }
}

/// What goes with every form.
pub(super) fn csrf(frame: &Frame<'_>) -> Markup {
    html! { input type="hidden" name="csrf" value=(frame.csrf); }
}
