//! What was asked for, what is under way, how the last ones ended. Rows are replaced as they change (`/events`).

use maud::{Markup, html};

use super::super::view::{Frame, Phase, Task};
use super::frame::{Place, csrf, page};
use super::parts::{cancel, progress, symbol};

pub(in crate::store) fn activity(frame: &Frame<'_>, tasks: &[Task]) -> Markup {
    let l = frame.language;
    let title = l.pick("Activité", "Activity");
    let content = html! {
        h1 { (title) }
        p.actions { a href="/activity" { (l.pick("Actualiser", "Refresh")) } }
        @if tasks.is_empty() { p { (l.pick("Rien n’est en cours.", "Nothing is under way.")) } }
        ol.tasks data-live="/events" { @for task in tasks { (task_row(frame, task)) } }
        // What changes is told in words, once; bars say the rest.
        p #told.hidden role="status" {}
    };
    page(frame, Place::Activity, title, &content)
}

/// One task: the element that takes the place of its predecessor.
pub(in crate::store) fn task_row(frame: &Frame<'_>, task: &Task) -> Markup {
    let l = frame.language;
    let name = l.of(&task.title);
    let (class, sign) = match task.phase {
        Phase::Done => ("here", "done"),
        Phase::Failed { .. } => ("blocked", "stop"),
        Phase::Cancelled => ("locked", "away"),
        Phase::Queued { .. } | Phase::Fetching { .. } | Phase::Installing => ("busy", "wait"),
    };
    let ended = matches!(task.phase, Phase::Failed { .. } | Phase::Cancelled);
    html! {
        li.task id={ "task-" (task.id) } data-phase=(class) {
            div.what {
                h2 { a href={ "/package/" (task.package) } { (name) } }
                p.detail { (l.verb(task.verb)) ", " (l.when(task.asked, &frame.zone)) }
                p.state.(class) { (symbol(sign)) span { (l.task(task)) } }
                (progress(frame, &task.phase, task.verb))
                @if let Phase::Failed { reason, said } = &task.phase {
                    @match reason {
                        Some(reason) => {
                            p { (l.reason(reason, &frame.zone)) }
                            p { strong { (l.who_can_unblock(reason)) } }
                        },
                        None => details { summary { (l.pick("Ce que l’ordinateur a noté", "What the computer noted")) } p lang="en" { (said) } },
                    }
                }
            }
            @if task.own {
                div.do {
                    @if task.ended.is_none() { (cancel(frame, task.id, name)) }
                    @if ended {
                        form method="post" action={ "/activity/" (task.id) "/retry" } {
                            (csrf(frame))
                            button aria-label={ (l.pick("Réessayer ", "Try again ")) (name) } { (l.pick("Réessayer", "Try again")) }
                        }
                    }
                }
            }
        }
    }
}
