//! A teacher orders for a room, from where she teaches and from elsewhere; machines obey within the signed deployment.

use mirabelle_tests::{Browser, samples};
use serde_json::{Value, json};

use super::{Store, post_json, start_agent};

/// Two days from now, as a form's date.
fn soon() -> String {
    let at = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(48)).unwrap();
    at.to_string()[..10].to_owned()
}

fn fill_order(browser: &mut Browser, college: &str, package: &str) {
    browser.tell(&json!({"do": "select", "label": "Collège", "value": college}));
    browser.fill("Salle", "B12");
    browser.tell(&json!({"do": "select", "label": "Application", "value": package}));
    browser.fill("Pour le", &soon());
    browser.tell(&json!({"do": "field", "name": "time", "text": "10:00"}));
}

#[test]
fn an_order_is_looked_at_taken_and_followed_machine_by_machine() {
    let mut store = Store::with(&samples()[..12]);
    let mut browser = store.browser();
    browser.goto(&store.page("/sign-in"));
    browser.button("Continuer");
    browser.sign_in_as("claire");
    browser.goto(&store.page("/rooms"));
    browser.is_accessible("the form of an order");
    // Without a day.
    fill_order(&mut browser, "57001", "stellarium");
    browser.fill("Pour le", "2020-01-01");
    browser.button("Vérifier");
    browser.wait("Donnez un jour et une heure à venir.");
    browser.is_accessible("an order that cannot be read");
    fill_order(&mut browser, "57001", "stellarium");
    browser.button("Vérifier");
    browser.wait("Prêt à temps");
    browser.is_accessible("an order that will be ready");
    browser.shot("rooms-check");
    browser.tell(&json!({"do": "click", "role": "button", "name": "Commander", "exact": true}));
    browser.wait("La commande est enregistrée.");
    store.agent.until("the order's end", || {
        let list = store.world.directory().join("college-57001/node/people/orders.json");
        fs_err::read_to_string(list).is_ok_and(|orders| orders.contains("\"done\""))
    });
    browser.goto(&store.page("/rooms"));
    browser.wait("Prêt, version 1.0");
    browser.is_accessible("an order and its machines");
    browser.shot("rooms-order");

    // For another college where she teaches, which hears of it from the origin.
    fill_order(&mut browser, "57002", "scratch");
    browser.tell(
        &json!({"do": "evaluate", "code": "document.querySelector('form.order').action = '/rooms/order'"}),
    );
    browser.button("Vérifier");
    browser.wait("La commande est enregistrée.");
    let college = store.world.college("57002");
    college.sync();
    let agent = start_agent(college);
    agent.until("the other college's machine", || {
        college.workstation(0).run(["--json", "list"]).json().get("scratch").is_some()
    });
    browser.goto(&store.page("/rooms"));
    browser.button("Annuler la commande");
    browser.wait("La commande est annulée.");
}

#[test]
fn nobody_orders_for_a_room_where_she_does_not_teach() {
    let mut store = Store::with(&samples()[..4]);
    let mut browser = store.browser();
    browser.goto(&store.page("/sign-in"));
    browser.button("Continuer");
    browser.sign_in_as("denis");
    browser.goto(&store.page("/rooms"));
    browser.tell(&json!({"do": "evaluate",
        "code": "document.querySelector('#college').innerHTML = '<option value=\"57001\">57001</option>'"}));
    fill_order(&mut browser, "57001", "scratch");
    browser.tell(
        &json!({"do": "evaluate", "code": "document.querySelector('form.order').action = '/rooms/order'"}),
    );
    browser.button("Vérifier");
    browser.wait("Choisissez un collège.");
    let orders = store.world.directory().join("college-57001/node/people/orders.json");
    assert!(!orders.exists());
    // A form that its own page did not check: a request without a signature, and one that nobody signed.
    let college = store.world.college("57001");
    let node = college.running_node().unwrap().address().to_owned();
    for forged in
        [json!({}), json!({"proof": {"code": {"key": {}}}, "request": {}, "signature": {}}), Value::Null]
    {
        let answer = post_json(&node, "/person", &forged.to_string());
        assert_eq!(answer, 400, "{forged}");
    }
}

#[test]
fn a_node_that_was_broken_into_gets_nothing_installed_but_what_a_teacher_may_have() {
    let mut store = Store::with(&samples());
    let college = store.world.college("57001");
    // Its file of orders says whatever somebody wrote there.
    let order = |number: u8, package: &str| {
        json!({"order": {"college": "57001", "id": format!("{number:032x}"), "ordered": "2026-01-01T00:00:00Z",
            "person": "ab".repeat(32), "by": "2099-01-01T00:00:00Z", "package": package, "room": "B12"},
            "from_elsewhere": false, "wake_at": null, "woken": true, "assessment": null, "machines": {}})
    };
    college.stop_node();
    let orders = [order(1, "tuxmath"), order(2, "nowhere"), order(3, "thonny")];
    let file = college.node_root().join("people/orders.json");
    fs_err::create_dir_all(file.parent().unwrap()).unwrap();
    fs_err::write(&file, json!({"orders": orders}).to_string()).unwrap();
    college.start_node();
    store.agent.until("what a teacher may have", || {
        college.workstation(0).run(["--json", "list"]).json().get("thonny").is_some()
    });
    store.agent.until("that the rest is refused", || {
        fs_err::read_to_string(&file).is_ok_and(|orders| orders.contains("\"refused\""))
    });
    let installed = college.workstation(0).run(["--json", "list"]).succeeds().json();
    assert!(installed.get("tuxmath").is_none() && installed.get("nowhere").is_none(), "{installed}");
}
