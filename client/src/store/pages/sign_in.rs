//! The page to sign in: with the département's provider, or with an offline code where that is out of reach.

use maud::{Markup, html};

use super::super::view::{Field, Frame, Trouble};
use super::frame::{Place, csrf, page};

pub(in crate::store) fn sign_in(frame: &Frame<'_>, trouble: Option<Trouble>) -> Markup {
    let l = frame.language;
    let title = l.pick("Ouvrir ma session", "Sign in");
    let of_code = trouble == Some(Trouble::CodeUnknown);
    let content = html! {
        h1 { (title) }
        p.lead { (l.pick("Le même compte dans tous les collèges du département.", "The same account in every college of the département.")) }
        @if let Some(trouble) = trouble {
            div.error role="alert" #trouble {
                p { (l.trouble(trouble)) }
                @if of_code { p { a href="#code" { (l.field(Field::Code)) } } }
            }
        }
        div.columns {
            section {
                h2 { (l.pick("Avec mon compte", "With my account")) }
                p { (l.pick("Vous passez par le service de connexion du département, puis revenez ici.", "You go through the département’s sign-in service, and come back here.")) }
                form method="post" action="/sign-in/provider" {
                    (csrf(frame))
                    button.primary { (l.pick("Continuer", "Continue")) }
                }
            }
            section {
                h2 { (l.pick("Avec un code de secours", "With an offline code")) }
                p { (l.pick("Quand la liaison du collège est coupée. Ce code se crée à l’avance, dans « Ma session ».", "When the college’s link is down. The code is made beforehand, in “My session”.")) }
                form method="post" action="/sign-in/code" {
                    (csrf(frame))
                    label for="code" { (l.pick("Code de secours", "Offline code")) }
                    input #code name="code" required maxlength="40" autocomplete="off" autocapitalize="characters" spellcheck="false"
                        aria-describedby="code-help" aria-invalid=[of_code.then_some("true")];
                    p.detail #code-help { (l.pick("Seize lettres et chiffres, par exemple K7QF-2M9X-PWTD-8RSA", "Sixteen letters and digits, for example K7QF-2M9X-PWTD-8RSA")) }
                    button { (l.pick("Entrer avec ce code", "Enter with this code")) }
                }
            }
        }
    };
    page(frame, Place::Elsewhere, title, &content)
}
