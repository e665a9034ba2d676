//! What is kept of a person, and what she may do about it.

use maud::{Markup, html};
use mirabelle_identity::Follow;

use super::super::view::{FOLLOWS, Frame, Me, SignedIn};
use super::frame::{Place, csrf, page};

pub(in crate::store) fn me(frame: &Frame<'_>, shown: &Me<'_>) -> Markup {
    let l = frame.language;
    let title = l.pick("Ma session", "My session");
    let content = html! {
        h1 { (title) }
        @if let Some(trouble) = shown.trouble { div.error role="alert" { p { (l.trouble(trouble)) } } }
        (who(frame))
        @if let Some(code) = &shown.code {
            section.code role="status" {
                h2 { (l.pick("Votre code de secours", "Your offline code")) }
                p.secret { (code) }
                p { (l.pick("Notez-le maintenant : il n’est affiché qu’une fois et n’est gardé nulle part.", "Write it down now: it is shown only once and kept nowhere.")) }
            }
        }
        section {
            h2 { (l.pick("Mes choix me suivent", "My choices follow me")) }
            form method="post" action="/me/follow" {
                (csrf(frame))
                fieldset {
                    legend { (l.pick("Sur un autre ordinateur ou dans un autre collège :", "On another computer or in another college:")) }
                    @for (follow, value) in FOLLOWS {
                        p {
                            input type="radio" name="follow" id={ "follow-" (value) } value=(value) checked[shown.choices.follow == follow];
                            " " label for={ "follow-" (value) } {
                                (match follow {
                                    Follow::Offer => l.pick("me proposer ce que j’ai choisi", "offer me what I chose"),
                                    Follow::Install => l.pick("l’installer dès que j’ouvre ma session", "install it as soon as I sign in"),
                                    Follow::Never => l.pick("ne rien garder de mes choix", "keep nothing of my choices"),
                                })
                            }
                        }
                    }
                }
                button { (l.pick("Enregistrer", "Save")) }
            }
        }
        section {
            h2 { (l.pick("Sans le réseau du département", "Without the département’s network")) }
            p {
                (l.pick("Un code de secours ouvre votre session dans tous les collèges pendant ", "An offline code signs you in at every college for "))
                (shown.offline_days) (l.pick(" jours. Un nouveau code remplace l’ancien.", " days. A new code replaces the old one."))
            }
            form method="post" action="/me/offline" {
                (csrf(frame))
                button { (l.pick("Créer un code de secours", "Make an offline code")) }
            }
        }
        section {
            h2 { (l.pick("Ce qui est gardé de moi", "What is kept of me")) }
            p { (l.pick("Un pseudonyme, et la liste de ce que vous avez choisi. Ni nom, ni adresse, ni élève.", "A pseudonym, and the list of what you chose. No name, no address, no pupil.")) }
            p.pseudonym { code { (shown.pseudonym) } }
            @let wanted: Vec<_> = shown.choices.wanted().collect();
            @if !wanted.is_empty() {
                ul { @for package in wanted { li { a href={ "/package/" (package) } { (package) } } } }
            }
            div.forms {
                a.button href="/me/export.json" download="mirabelle.json" { (l.pick("Télécharger mes données", "Download my data")) }
                form method="post" action="/me/forget" {
                    (csrf(frame))
                    button { (l.pick("Tout effacer", "Erase everything")) }
                }
            }
        }
    };
    page(frame, Place::Elsewhere, title, &content)
}

fn who(frame: &Frame<'_>) -> Markup {
    let l = frame.language;
    let (until, colleges) = match &frame.person.how {
        SignedIn::Provider { until, colleges, .. } | SignedIn::Code { until, colleges } => (*until, colleges),
        SignedIn::Account | SignedIn::No => return html! {},
    };
    html! {
        p.lead {
            (l.pick("Session d’", "Signed in as ")) (l.asker(frame.person.asker))
            (l.pick(", jusqu’à ", ", until ")) (l.when(until, &frame.zone)) "."
        }
        @if !colleges.is_empty() {
            p { (l.pick("Collèges : ", "Colleges: ")) (colleges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")) }
        }
    }
}
