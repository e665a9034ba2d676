//! What must fail: a pupil who wants a teacher's software, another user of the machine, a page of elsewhere, a code that was used.

use std::os::unix::process::CommandExt;
use std::process::Command;

use mirabelle_tests::{App, as_somebody, samples};
use serde_json::json;

use super::Store;

/// Sends a request as it is written, as whoever opened the store; the answer's status and text.
fn send(store: &Store, request: &str) -> (u16, String) {
    let address = store.page("").trim_start_matches("http://").to_owned();
    let answer = exchange(&address, &request.replace("ADDRESS", &address).replace('\n', "\r\n"));
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

/// What is answered to these bytes.
fn exchange(address: &str, request: &str) -> String {
    let (host, port) = address.split_once(':').unwrap();
    let script = format!(
        "const socket = require('net').connect({port}, '{host}'); socket.on('data', (data) => process.stdout.write(data)); \
         socket.on('error', () => process.exit(1)); socket.write({request:?})"
    );
    let output = as_somebody(Command::new("node").args(["-e", &script])).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn get(store: &Store, path: &str, headers: &str) -> (u16, String) {
    send(store, &format!("GET {path} HTTP/1.1\nHost: ADDRESS\nConnection: close\n{headers}\n"))
}

fn post(store: &Store, path: &str, headers: &str, form: &str) -> (u16, String) {
    send(
        store,
        &format!(
            "POST {path} HTTP/1.1\nHost: ADDRESS\nConnection: close\nContent-Type: application/x-www-form-urlencoded\n\
             Content-Length: {}\n{headers}\n{form}",
            form.len()
        ),
    )
}

/// Comes in by the ticket, and takes the cookie and the forms' secret as a program would.
fn enter(store: &Store, url: &str) -> (String, String) {
    let ticket = url.split("/open/").nth(1).unwrap();
    let (status, answer) = get(store, &format!("/open/{ticket}"), "");
    assert_eq!(status, 303);
    let cookie = answer.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert!(answer.contains("; HttpOnly; SameSite=Lax"), "{answer}");
    let (status, page) = get(store, "/", &format!("Cookie: {cookie}\n"));
    assert_eq!(status, 200);
    let csrf = page.split(r#"name="csrf" value=""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    let again = get(store, &format!("/open/{ticket}"), "");
    assert_eq!(again.0, 403, "a ticket counts once");
    (cookie, csrf)
}

#[test]
fn only_whoever_opened_the_store_on_this_machine_drives_it() {
    let mut store = Store::with(&samples());
    let url = store.open();
    let (cookie, csrf) = enter(&store, &url);
    let own = "Origin: http://ADDRESS\n".to_owned();
    let cookie = format!("Cookie: {cookie}\n");
    let form = format!("csrf={csrf}&lang=en&back=/mine");
    let language = |headers: &str, form: &str| post(&store, "/language", headers, form).0;
    assert_eq!(language(&format!("{own}{cookie}"), &form), 303, "the store's own form");
    // Another origin, none, another site.
    for origin in ["Origin: http://evil.example\n", "Origin: null\n", "", "Origin: http://localhost:1\n"] {
        assert_eq!(language(&format!("{origin}{cookie}"), &form), 403, "{origin:?}");
    }
    assert_eq!(language(&format!("{own}{cookie}Sec-Fetch-Site: cross-site\n"), &form), 403);
    // Without the form's secret, or with another.
    assert_eq!(language(&format!("{own}{cookie}"), "lang=en"), 403);
    assert_eq!(language(&format!("{own}{cookie}"), &form.replace(&csrf, &"0".repeat(64))), 403);
    // A name that leads here.
    let rebound = format!("GET / HTTP/1.1\nHost: store.example\nConnection: close\n{cookie}\n");
    assert_eq!(send(&store, &rebound).0, 421);
    // A page of elsewhere that includes one of ours.
    assert_eq!(
        get(&store, "/", &format!("{cookie}Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors\n")).0,
        403
    );
    // No session.
    assert_eq!(get(&store, "/", "").0, 403);
    assert_eq!(get(&store, "/", "Cookie: mirabelle-1=x\n").0, 403);
    // Another user of the machine who got hold of the cookie.
    let script = format!(
        "fetch({:?}, {{headers: {{cookie: {:?}}}}}).then((answer) => console.log(answer.status))",
        store.page("/"),
        cookie.trim().trim_start_matches("Cookie: ")
    );
    let asked = |command: &mut Command| {
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let mut node = Command::new("node");
    node.args(["-e", &script]);
    assert_eq!(asked(&mut as_somebody(&node)), "200");
    assert_eq!(asked(node.uid(65533)), "403");
    // Elsewhere than to the store's own pages nobody is led.
    let (_, answer) =
        post(&store, "/language", &format!("{own}{cookie}"), &form.replace("/mine", "//evil.example"));
    assert!(answer.contains("location: /\r\n"), "{answer}");
    // The desktop goes, and its session with it.
    let address = store.page("");
    store.close();
    store.agent.until("the session's end", || {
        let host = address.trim_start_matches("http://");
        let request =
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{}\r\n\r\n", cookie.trim());
        let answer = exchange(host, &request);
        answer.starts_with("HTTP/1.1 403")
    });
}

#[test]
fn a_pupil_gets_no_teachers_software_and_nobody_what_is_not_deployed() {
    let hostile = App::new("hostile", 1)
        .titled(
            ["<script>alert(1)</script>", "<script>alert(1)</script>"],
            ["<img src=x onerror=alert(1)>", "x"],
        )
        .recipe(
            "[store]\nauthor = \"<b>\"\ndescription = { fr = \"<script>alert(2)</script>\", en = \"x\" }",
        );
    let apps: Vec<App> = samples().into_iter().chain([hostile]).collect();
    let mut store = Store::with(&apps);
    let mut browser = store.browser();
    // What a page does not offer, a form may still ask for.
    browser.goto(&store.page("/package/geogebra"));
    for package in ["tuxmath", "thonny"] {
        browser.goto(&store.page("/package/geogebra"));
        let code = format!(
            "document.querySelector('form[action$=\"/install\"]').action = '/package/{package}/install'"
        );
        browser.tell(&json!({"do": "evaluate", "code": code}));
        browser.button("Installer");
        let failed = format!("li.task:has(a[href='/package/{package}']) .blocked");
        browser.tell(&json!({"do": "seen", "selector": failed}));
    }
    browser.goto(&store.page("/package/tuxmath"));
    browser.wait("Il n’est pas autorisé sur cet ordinateur.");
    // Emma signs in, and is a pupil still.
    browser.goto(&store.page("/sign-in"));
    browser.button("Continuer");
    browser.sign_in_as("emma");
    browser.goto(&store.page("/package/thonny"));
    assert!(!browser.text().contains("Installer Thonny"));
    browser.goto(&store.page("/rooms"));
    browser.wait("Ouvrez votre session d’enseignant");
    // What a package says of itself is text.
    browser.goto(&store.page("/package/hostile"));
    browser.wait("<script>alert(1)</script>");
    browser.wait("<script>alert(2)</script>");
    browser.is_accessible("a hostile package");
    let installed = store.world.college("57001").workstation(0).run(["--json", "list"]).succeeds().json();
    assert!(installed.get("thonny").is_none() && installed.get("tuxmath").is_none(), "{installed}");
}

#[test]
fn a_code_that_was_used_or_is_anothers_signs_nobody_in() {
    let mut store = Store::with(&samples()[..1]);
    let mut browser = store.browser();
    browser.goto(&store.page("/sign-in"));
    // Of a sign-in that nobody began here.
    browser.goto(&store.page("/sign-in/return?code=stolen&state=guessed"));
    browser.wait("Cette connexion a expiré ou a déjà servi");
    browser.tell(&json!({"do": "faults"}));
    browser.button("Continuer");
    browser.tell(&json!({"do": "field", "name": "login", "text": "claire"}));
    let state = browser.tell(&json!({"do": "evaluate", "code": "location.href"}));
    assert!(state.as_str().unwrap().starts_with(store.provider.address()), "{state}");
    browser.tell(&json!({"do": "field", "name": "password", "text": "any"}));
    browser.tell(&json!({"do": "submit"}));
    browser.tell(&json!({"do": "submit"}));
    browser.tell(&json!({"do": "at", "path": "/"}));
    browser.wait("Claire Weber");
    browser.button("Fermer la session");
    // Another answer to a sign-in that was begun: its state is another.
    browser.goto(&store.page("/sign-in"));
    browser.button("Continuer");
    browser.goto(&store.page("/sign-in/return?code=another&state=another"));
    browser.wait("La connexion n’a pas été acceptée");
    // And the one that was begun is over with it.
    browser.goto(&store.page("/sign-in/return?code=another&state=another"));
    browser.wait("Cette connexion a expiré ou a déjà servi");
    browser.goto(&store.page("/sign-in"));
    for _ in 0..6 {
        browser.fill("Code de secours", "K7QF-2M9X-PWTD-8RSA");
        browser.button("Entrer avec ce code");
        browser.goto(&store.page("/sign-in"));
    }
    browser.fill("Code de secours", "K7QF-2M9X-PWTD-8RSA");
    browser.button("Entrer avec ce code");
    browser.wait("Trop d’essais");
}
