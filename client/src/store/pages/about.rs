//! The statement on accessibility, and what this is.

use maud::{Markup, html};

use super::super::view::Frame;
use super::frame::{Place, page};

pub(in crate::store) fn about(frame: &Frame<'_>) -> Markup {
    let l = frame.language;
    let title = l.pick("Accessibilité", "Accessibility");
    let content = html! {
        h1 { (title) }
        p.lead { (l.pick("Ce magasin vise le RGAA 4.1 et les WCAG 2.1, niveau AA.", "This store aims at RGAA 4.1 and WCAG 2.1, level AA.")) }
        section {
            h2 { (l.pick("État de conformité", "State of conformity")) }
            p { (l.pick("Conformité partielle : aucun audit n’a encore été mené par un tiers.", "Partially conformant: no audit by a third party has been made yet.")) }
            p { (l.pick("À chaque version, chaque page est contrôlée par un outil (axe-core) dans un vrai navigateur, en français et en anglais, et le parcours complet est fait au clavier seul. Un tel outil ne voit pas tout : les essais avec un lecteur d’écran et avec des personnes restent à faire.", "With each version every page is checked by a tool (axe-core) in a real browser, in French and in English, and the whole journey is made by keyboard alone. Such a tool does not see everything: trials with a screen reader and with people remain to be made.")) }
        }
        section {
            h2 { (l.pick("Ce qui est prévu pour tous", "What is made for everybody")) }
            ul {
                li { (l.pick("Tout se fait au clavier ; la position est toujours visible.", "Everything works by keyboard; where you are is always visible.")) }
                li { (l.pick("Aucun état n’est dit par la couleur seule.", "No state is told by colour alone.")) }
                li { (l.pick("Rien ne disparaît après un délai ; rien ne bouge si vous l’avez demandé au système.", "Nothing disappears after a time; nothing moves if you told the system so.")) }
                li { (l.pick("Les pages se lisent à 320 pixels de large et à 200 % de zoom, et fonctionnent sans JavaScript.", "Pages can be read at 320 pixels and at 200 % zoom, and work without JavaScript.")) }
            }
        }
        section {
            h2 { (l.pick("Signaler une difficulté", "Report a difficulty")) }
            p { (l.pick("Dites-le à l’équipe informatique du département, avec le nom de cet ordinateur, affiché en bas de chaque page. Sans réponse, le Défenseur des droits peut être saisi.", "Tell the département’s IT team, with this computer’s name, shown at the bottom of each page. Without an answer, you can turn to the Défenseur des droits.")) }
        }
    };
    page(frame, Place::Elsewhere, title, &content)
}
