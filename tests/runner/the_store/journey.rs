//! The whole way of a teacher through the store, in both languages and by keyboard alone; every page is looked at by axe-core.

use mirabelle_tests::{Browser, sample, samples};
use serde_json::json;

use super::Store;

/// Every page that somebody who is signed in can see.
const PAGES: [&str; 14] = [
    "/",
    "/all",
    "/category/Education",
    "/subject/mathematics",
    "/level/6e",
    "/search?q=geogbra",
    "/search?q=zzzz",
    "/package/geogebra",
    "/package/tuxmath",
    "/mine",
    "/updates",
    "/activity",
    "/rooms",
    "/me",
];

fn look_at_every_page(store: &Store, browser: &mut Browser, what: &str) {
    for page in PAGES.into_iter().chain(["/sign-in", "/about", "/nowhere"]) {
        browser.tell(&json!({"do": "goto", "url": store.page(page)}));
        if page == "/nowhere" {
            // The browser notes the status of its own accord.
            browser.tell(&json!({"do": "faults"}));
        }
        browser.is_accessible(&format!("{what} {page}"));
        let name = page.trim_start_matches('/').replace(['/', '?', '='], "-");
        browser.shot(&format!("{what}-{}", if name.is_empty() { "discover" } else { &name }));
    }
}

#[test]
fn a_teacher_finds_installs_opens_updates_goes_back_and_removes() {
    let mut store = Store::with(&samples());
    let mut browser = store.browser();
    browser.wait("Découvrir");
    browser.is_accessible("the first page, nobody signed in");

    // Sign in.
    browser.link("Ouvrir ma session");
    browser.is_accessible("the page to sign in");
    browser.button("Continuer");
    browser.sign_in_as("claire");
    browser.wait("Claire Weber");
    browser.wait("Votre session est ouverte.");

    // Search, with a mistake, while typing.
    browser.goto(&store.page("/search?q="));
    browser.tell(&json!({"do": "fill", "label": "Chercher une application", "text": "geogbra"}));
    browser.wait("1 application trouvée");
    browser.tell(&json!({"do": "click", "role": "link", "name": "GeoGebra", "exact": true}));

    // Install, and watch it to its end without loading the page again.
    browser.wait("signature vérifiée");
    browser.button("Installer GeoGebra");
    browser.tell(&json!({"do": "at", "path": "/activity"}));
    browser.tell(&json!({"do": "wait", "text": "Installé"}));
    browser.shot("activity-done");

    // Open.
    let launched = store.world.college("57001").workstation(0).root().join("launched");
    browser.goto(&store.page("/package/geogebra"));
    browser.button("Ouvrir GeoGebra");
    browser.wait("L’application s’ouvre.");
    store.agent.until("the application", || {
        fs_err::read_to_string(&launched).unwrap_or_default().contains("geogebra 1")
    });

    // Update.
    let newer = sample("geogebra", 2);
    store.world.submit(&newer);
    store.world.approve(&newer);
    store.world.publish();
    store.world.college("57001").sync();
    let updates = store.page("/updates");
    let mut seen = false;
    for _ in 0..60 {
        browser.goto(&updates);
        if browser.text().contains("1.0 → 2.0") {
            seen = true;
            break;
        }
        browser.goto(&store.page("/activity"));
    }
    assert!(seen, "the update is not shown:\n{}", browser.text());
    browser.is_accessible("an update");
    browser.shot("updates-one");
    browser.button("Mettre à jour GeoGebra");
    browser.wait("Mis à jour");

    // Go back, and stay there until a day.
    browser.goto(&store.page("/package/geogebra"));
    browser.is_accessible("an installed package");
    browser.shot("package-installed");
    browser.button("Revenir à la version 1.0");
    browser.wait("Version précédente remise");
    browser.goto(&store.page("/package/geogebra"));
    browser.wait("est gardée jusqu’au");
    browser.button("Reprendre les mises à jour maintenant");
    browser.wait("Les mises à jour reprennent.");

    // Everything is in the history.
    browser.goto(&store.page("/mine"));
    let text = browser.text();
    for words in ["1.0 installé", "1.0 → 2.0, mis à jour", "2.0 → 1.0, version précédente remise"] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    look_at_every_page(&store, &mut browser, "fr");

    // Remove.
    browser.goto(&store.page("/package/geogebra"));
    browser.button("Retirer GeoGebra");
    browser.wait("Retiré");
    browser.goto(&store.page("/package/geogebra"));
    browser.wait("Disponible");

    // The other language, at 320 pixels, in the dark.
    browser.button("English");
    browser.wait("Sign out");
    look_at_every_page(&store, &mut browser, "en");

    // Sign out, at the provider as well.
    browser.goto(&store.page("/"));
    browser.button("Sign out");
    // The provider asks whether it should.
    browser.tell(&json!({"do": "submit"}));
    browser.tell(&json!({"do": "at", "path": "/"}));
    browser.goto(&store.page("/"));
    browser.wait("Sign in");
}

#[test]
fn a_pupil_without_a_mouse_and_without_scripts_gets_what_everybody_may_have() {
    let mut store = Store::with(&samples());
    let url = store.open();
    let mut browser = Browser::start();
    browser.tell(&json!({"do": "open", "width": 320, "height": 640, "dark": true}));
    browser.goto(&url);
    for page in [
        "/",
        "/search?q=dessin",
        "/package/geogebra",
        "/package/thonny",
        "/mine",
        "/updates",
        "/activity",
        "/sign-in",
        "/about",
    ] {
        browser.goto(&store.page(page));
        browser.is_accessible(&format!("320 pixels, dark: {page}"));
        let name = page.trim_start_matches('/').replace(['/', '?', '='], "-");
        browser.shot(&format!("small-{}", if name.is_empty() { "discover" } else { &name }));
    }

    // By keyboard alone.
    browser.goto(&store.page("/"));
    browser.tell(&json!({"do": "tab", "to": "Aller au contenu"}));
    browser.tell(&json!({"do": "press", "key": "Enter"}));
    browser.tell(&json!({"do": "tab", "to": "GeoGebra"}));
    browser.tell(&json!({"do": "press", "key": "Enter"}));
    browser.tell(&json!({"do": "at", "path": "/package/geogebra"}));
    browser.tell(&json!({"do": "tab", "to": "Installer GeoGebra"}));
    browser.tell(&json!({"do": "press", "key": "Enter"}));
    browser.tell(&json!({"do": "at", "path": "/activity"}));
    browser.wait("Installé");

    // Without scripts.
    let url = store.open();
    browser.tell(&json!({"do": "open", "script": false}));
    browser.goto(&url);
    browser.fill("Chercher une application", "goegebra");
    browser.button("Chercher");
    browser.wait("1 application trouvée");
    browser.goto(&store.page("/package/thonny"));
    browser.wait("Un enseignant peut l’installer en ouvrant sa session ici.");
    browser.goto(&store.page("/package/inkscape"));
    browser.button("Installer Inkscape");
    // The page loads itself again.
    browser.wait("Installé");
}
