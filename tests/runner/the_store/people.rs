//! One teacher at every college: what she chose follows her, and a code lets her in while the link is cut.

use mirabelle_tests::{Browser, Fault, samples};
use serde_json::json;

use super::{Desktop, Store, start_agent};

/// Her own page, once she signed in and installed something.
fn claire_has_scratch(store: &mut Store) -> Browser {
    let mut browser = store.browser();
    browser.goto(&store.page("/sign-in"));
    browser.button("Continuer");
    browser.sign_in_as("claire");
    browser.goto(&store.page("/package/scratch"));
    browser.button("Installer Scratch");
    browser.wait("Installé");
    browser.goto(&store.page("/me"));
    browser
}

#[test]
fn what_a_teacher_chose_follows_her_and_a_code_lets_her_in_without_the_link() {
    let mut store = Store::with(&samples()[..4]);
    let mut browser = claire_has_scratch(&mut store);
    browser.wait("scratch");
    browser.button("Créer un code de secours");
    browser.wait("Votre code de secours");
    let code = browser.tell(&json!({"do": "text", "selector": ".secret"}));
    let code = code.as_str().unwrap().trim().to_owned();
    browser.goto(&store.page("/me"));
    assert!(!browser.text().contains(&code), "shown once");

    // At another college, where she never was.
    let college = store.world.college("57002");
    college.sync();
    let agent = start_agent(college);
    let desktop =
        Desktop::open(college.workstation(0).command(), &college.workstation(0).root().join("launched"));
    let mut elsewhere = Browser::start();
    elsewhere.goto(&desktop.url);
    let page = |path: &str| format!("{}{path}", desktop.base());
    elsewhere.goto(&page("/sign-in"));
    elsewhere.button("Continuer");
    elsewhere.sign_in_as("claire");
    elsewhere.wait("Vos choix faits ailleurs");
    elsewhere.wait("Choisi sur un autre ordinateur");
    elsewhere.goto(&page("/me"));
    elsewhere
        .tell(&json!({"do": "click", "role": "radio", "name": "l’installer dès que j’ouvre ma session"}));
    elsewhere.button("Enregistrer");
    elsewhere.wait("Votre choix est enregistré.");
    elsewhere.button("Fermer la session");
    elsewhere.goto(&page("/"));

    // The link is cut; the list of rights is here by now.
    agent.until("the list of rights", || {
        let list = fs_err::read_to_string(college.node_root().join("people/rights.json"));
        list.is_ok_and(|list| list.contains("\"teacher\":true"))
    });
    college.wan().fail(Fault::Down);
    elsewhere.goto(&page("/sign-in"));
    elsewhere.fill("Code de secours", &code.to_lowercase().replace('-', " "));
    elsewhere.button("Entrer avec ce code");
    elsewhere.wait("Votre session est ouverte.");
    // She said that it is to be installed as soon as she signs in.
    agent.until("what she chose", || {
        college.workstation(0).run(["--json", "list"]).json().get("scratch").is_some()
    });
    elsewhere.goto(&page("/me"));
    elsewhere.wait("Session d’enseignant");
}

#[test]
fn what_is_kept_of_a_person_is_shown_to_her_and_erased() {
    let mut store = Store::with(&samples()[..2]);
    let mut browser = claire_has_scratch(&mut store);
    let pseudonym = browser.tell(&json!({"do": "text", "selector": ".pseudonym"}));
    let pseudonym = pseudonym.as_str().unwrap().trim().to_owned();
    let export =
        |store: &Store| store.world.publisher(["--json", "person", "export", &pseudonym]).succeeds().stdout;
    store.agent.until("her choice at the origin", || export(&store).contains("scratch"));
    let kept = export(&store);
    for personal in ["claire", "Claire", "Weber", "57001"] {
        assert!(!kept.contains(personal), "{personal} in {kept}");
    }
    browser.button("Tout effacer");
    browser.wait("Tout ce qui était gardé est effacé.");
    store.agent.until("that it is forgotten at the origin", || !export(&store).contains("scratch"));
    store.world.publisher(["person", "erase", &pseudonym]).succeeds();
    store.world.publisher(["person", "erase", &pseudonym]).fails(1, "nothing is kept of");
}
