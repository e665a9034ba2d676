//! What cannot be shown or done now, and what helps.

use maud::{Markup, html};

use super::super::view::{Frame, Trouble};
use super::frame::{Place, page};

pub(in crate::store) fn message(frame: &Frame<'_>, trouble: Trouble) -> Markup {
    let l = frame.language;
    let title = match trouble {
        Trouble::NotFound => l.pick("Page introuvable", "Page not found"),
        _ => l.pick("Cela n’a pas abouti", "That did not succeed"),
    };
    let content = html! {
        h1 { (title) }
        p.lead { (l.trouble(trouble)) }
        p { a href="/" { (l.pick("Retour à la page d’accueil", "Back to the first page")) } }
    };
    page(frame, Place::Elsewhere, title, &content)
}
