//! Orders for rooms: the form, what it would come to, and how far each machine is.

use maud::{Markup, html};
use mirabelle_identity::{Assessment, OrderStatus, Progress, Ready};
use mirabelle_manifests::PackageName;

use super::super::view::{Draft, Field, Frame, Item, Rooms};
use super::frame::{Place, csrf, page};
use super::parts::symbol;

pub(in crate::store) fn rooms(frame: &Frame<'_>, shown: &Rooms<'_>) -> Markup {
    let l = frame.language;
    let title = l.pick("Salles", "Rooms");
    let content = html! {
        h1 { (title) }
        p.lead { (l.pick("Une application sur tous les ordinateurs d’une salle, prête pour votre cours.", "An application on every computer of a room, ready for your lesson.")) }
        @if let Some(trouble) = shown.trouble { div.error role="alert" { p { (l.trouble(trouble)) } } }
        @if shown.colleges.is_empty() {
            p { a.button href="/sign-in" { (l.pick("Ouvrir ma session", "Sign in")) } }
        } @else {
            (form(frame, shown))
            section {
                h2 { (l.pick("Commandes", "Orders")) }
                @if shown.orders.is_empty() { p { (l.pick("Aucune commande.", "No orders.")) } }
                @for status in &shown.orders { (order(frame, shown, status)) }
            }
        }
    };
    page(frame, Place::Rooms, title, &content)
}

fn form(frame: &Frame<'_>, shown: &Rooms<'_>) -> Markup {
    let l = frame.language;
    let empty = Draft::default();
    let draft = shown.draft.as_ref().unwrap_or(&empty);
    let wrong = |field: Field| draft.wrong.contains(&field).then_some("true");
    let fields = [
        (Field::College, "college"),
        (Field::Room, "room"),
        (Field::Package, "package"),
        (Field::When, "date"),
        (Field::KeepUntil, "keep"),
    ];
    html! {
        section {
            h2 { (l.pick("Nouvelle commande", "New order")) }
            @if !draft.wrong.is_empty() {
                div.error role="alert" {
                    p { (l.pick("Il manque quelque chose :", "Something is missing:")) }
                    ul { @for (field, id) in fields { @if draft.wrong.contains(&field) { li { a href={ "#" (id) } { (l.field(field)) } } } } }
                }
            }
            form.order method="post" action="/rooms/check" {
                (csrf(frame))
                p {
                    label for="college" { (l.pick("Collège", "College")) }
                    select #college name="college" aria-invalid=[wrong(Field::College)] {
                        @for college in shown.colleges { option value=(college) selected[draft.college == college.as_str()] { (college) } }
                    }
                }
                p {
                    label for="room" { (l.pick("Salle", "Room")) }
                    input #room name="room" required maxlength="32" value=(draft.room) aria-invalid=[wrong(Field::Room)];
                }
                p {
                    label for="package" { (l.pick("Application", "Application")) }
                    select #package name="package" required aria-invalid=[wrong(Field::Package)] {
                        option value="" { (l.pick("Choisir…", "Choose…")) }
                        @for item in &shown.packages {
                            option value=(item.package) selected[draft.package == item.package.as_str()] { (l.of(&item.title)) }
                        }
                    }
                }
                p {
                    label for="date" { (l.pick("Pour le", "For")) }
                    input #date type="date" name="date" required value=(draft.date) aria-invalid=[wrong(Field::When)];
                }
                p {
                    label for="time" { (l.pick("À", "At")) }
                    input #time type="time" name="time" required value=(draft.time) aria-invalid=[wrong(Field::When)];
                }
                p {
                    label for="keep" { (l.pick("Garder cette version jusqu’au (facultatif)", "Keep this version until (optional)")) }
                    input #keep type="date" name="keep_until" value=(draft.keep_until) aria-invalid=[wrong(Field::KeepUntil)];
                }
                button { (l.pick("Vérifier", "Check")) }
                @if let Some(assessment) = &draft.assessment {
                    (assessed(frame, assessment))
                    @if assessment.ready != Ready::No {
                        button.primary formaction="/rooms/order" { (l.pick("Commander", "Order")) }
                    }
                }
            }
        }
    }
}

/// Whether it will be ready, and why not.
fn assessed(frame: &Frame<'_>, assessment: &Assessment) -> Markup {
    let (l, zone) = (frame.language, &frame.zone);
    let (class, sign) = match assessment.ready {
        Ready::Yes { .. } => ("here", "done"),
        Ready::Late { .. } => ("newer", "wait"),
        Ready::No => ("blocked", "stop"),
    };
    html! {
        div.assessment role="status" {
            p.state.(class) {
                (symbol(sign))
                span {
                    @match assessment.ready {
                        Ready::Yes { at } => { (l.pick("Prêt à temps : ", "Ready in time: ")) (l.when(at, zone)) },
                        Ready::Late { at } => { (l.pick("En retard : ", "Late: ")) (l.when(at, zone)) },
                        Ready::No => (l.pick("Pas possible", "Not possible")),
                    }
                }
            }
            ul {
                @if assessment.ready == Ready::No {
                    @match assessment.reasons.last() {
                        Some(_) if assessment.machines == 0 => li { (l.pick("Aucun ordinateur de cette salle n’est connu du serveur du collège.", "No computer of this room is known to the college’s server.")) },
                        Some(reason) => { li { (l.reason(reason, zone)) } li { strong { (l.who_can_unblock(reason)) } } },
                        None => li { (l.pick("Aucun ordinateur de cette salle n’est connu du serveur du collège.", "No computer of this room is known to the college’s server.")) },
                    }
                }
                li { (l.known_computers(assessment.machines)) }
                @if assessment.without_room > 0 {
                    li { (l.computers_without_room(assessment.without_room)) }
                }
                @if assessment.wan_bytes > 0 {
                    li { (l.bytes(assessment.wan_bytes)) (l.pick(" à faire venir par la liaison du collège", " to come over the college’s link")) }
                }
                @if let Some(wake) = assessment.wake_at {
                    li { (l.pick("Les ordinateurs éteints sont allumés ", "Computers that are off are woken ")) (l.when(wake, zone)) (l.pick(", puis éteints à nouveau", ", then switched off again")) }
                }
            }
        }
    }
}

fn name<'i>(frame: &Frame<'_>, shown: &'i Rooms<'_>, package: &'i PackageName) -> &'i str {
    let item: Option<&&Item> = shown.packages.iter().find(|item| item.package == *package);
    item.map_or(package.as_str(), |item| frame.language.of(&item.title))
}

fn order(frame: &Frame<'_>, shown: &Rooms<'_>, status: &OrderStatus) -> Markup {
    let (l, zone) = (frame.language, &frame.zone);
    let OrderStatus { order, assessment, machines } = status;
    let done = machines.values().filter(|progress| matches!(progress, Progress::Done { .. })).count();
    html! {
        article.room id={ "order-" (order.id) } {
            h3 { (name(frame, shown, &order.wanted.package)) (l.pick(", salle ", ", room ")) (order.wanted.room) }
            p { (l.pick("Collège ", "College ")) (order.college) (l.pick(", pour ", ", for ")) (l.when(order.wanted.by, zone)) }
            @if let Some(keep) = &order.wanted.keep {
                p { (l.pick("Version gardée jusqu’au ", "Version kept until ")) (l.day(keep.until, zone)) }
            }
            p {
                progress max=(machines.len().max(1)) value=(done) aria-label=(l.pick("Ordinateurs prêts", "Computers that are ready")) {}
                " " (done) (l.pick(" sur ", " of ")) (machines.len()) (l.pick(if done > 1 { " prêts" } else { " prêt" }, " ready"))
            }
            @if let Some(assessment) = assessment && done < machines.len() { (assessed(frame, assessment)) }
            @if !machines.is_empty() {
                div.scroll tabindex="0" role="region" aria-label={ (l.pick("Ordinateurs de la salle ", "Computers of room ")) (order.wanted.room) } {
                    table {
                        caption.hidden { (l.pick("Ordinateurs de la salle", "Computers of the room")) }
                        thead { tr { th scope="col" { (l.pick("Ordinateur", "Computer")) } th scope="col" { (l.pick("État", "State")) } } }
                        tbody {
                            @for (machine, progress) in machines {
                                tr { th scope="row" { (machine) } td { (machine_progress(frame, progress)) } }
                            }
                        }
                    }
                }
            }
            form method="post" action="/rooms/cancel" {
                (csrf(frame))
                input type="hidden" name="order" value=(order.id);
                input type="hidden" name="college" value=(order.college);
                button { (l.pick("Annuler la commande", "Cancel the order")) }
            }
        }
    }
}

fn machine_progress(frame: &Frame<'_>, progress: &Progress) -> Markup {
    let (l, zone) = (frame.language, &frame.zone);
    let (class, sign) = match progress {
        Progress::Done { .. } => ("here", "done"),
        Progress::Refused { .. } => ("blocked", "stop"),
        Progress::Failed => ("newer", "wait"),
        Progress::Waiting | Progress::Fetching => ("busy", "wait"),
    };
    html! {
        span.state.(class) {
            (symbol(sign))
            span {
                @match progress {
                    Progress::Waiting => (l.pick("Éteint, ou pas encore informé", "Off, or not told yet")),
                    Progress::Fetching => (l.pick("En cours", "Under way")),
                    Progress::Done { version } => { (l.pick("Prêt, version ", "Ready, version ")) (version) },
                    Progress::Refused { reason } => (l.reason(reason, zone)),
                    Progress::Failed => (l.pick("N’a pas abouti, sera réessayé", "Did not succeed, will be tried again")),
                }
            }
        }
    }
}
