//! Every page, in both languages, with everything on it: that it is well made, and that pages agree.

use jiff::tz::TimeZone;
use mirabelle_identity::{
    Assessment, Choice, Choices, Order, OrderStatus, Progress, Ready, RequestId, Wanted,
};
use mirabelle_manifests::{
    Asker, Digest, Instant, Keep, Media, MediaKind, PackageName, Reason, Screenshot, SiteId, StorePage, Text,
    Version,
};

use super::super::view::*;
use super::*;

const HOSTILE: &str = "<script>alert(1)</script> & \"'";

fn text(text: &str) -> Text {
    Text { fr: text.to_owned(), en: format!("{text} (en)") }
}

fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

fn name(name: &str) -> PackageName {
    name.parse().unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// A package that may be installed.
pub(in crate::store) fn item(package: &str) -> Item {
    Item {
        package: name(package),
        title: text(package),
        summary: text("Ce que c’est, en deux lignes."),
        version: version("1.2"),
        categories: vec!["Education".to_owned()],
        subjects: vec!["mathematics".parse().unwrap()],
        levels: vec!["6e".parse().unwrap()],
        keywords: Vec::new(),
        icon: Some(Digest::of(package.as_bytes())),
        page: None,
        licence: "MIT".to_owned(),
        download_bytes: 12_000_000,
        installed_bytes: 40_000_000,
        approved: Some(at("2026-11-01T09:00:00Z")),
        is_new: true,
        who: WhoMay::Anyone,
        standing: Standing::Offered,
        installed: None,
        followed: false,
    }
}

fn installed(package: &str) -> Item {
    let installed = Installed {
        version: version("1.2"),
        sequence: 2,
        bytes: 40_000_000,
        opens: true,
        removable: true,
        previous: Some((1, version("1.1"))),
        kept_until: None,
    };
    Item { standing: Standing::Here, installed: Some(installed), ..item(package) }
}

fn task(phase: Phase) -> Task {
    let ended = matches!(phase, Phase::Done | Phase::Cancelled | Phase::Failed { .. });
    Task {
        id: 7,
        package: name("geogebra"),
        title: text("GeoGebra"),
        verb: TaskVerb::Install,
        phase,
        asked: at("2026-11-26T09:00:00Z"),
        ended: ended.then(|| at("2026-11-26T09:05:00Z")),
        own: true,
    }
}

fn phases() -> Vec<Phase> {
    vec![
        Phase::Queued { before: 0 },
        Phase::Queued { before: 2 },
        Phase::Fetching { done: 1_000_000, total: 4_000_000, seconds_left: Some(40) },
        Phase::Installing,
        Phase::Done,
        Phase::Cancelled,
        Phase::Failed { reason: Some(Reason::Blocked), said: HOSTILE.to_owned() },
        Phase::Failed { reason: None, said: HOSTILE.to_owned() },
    ]
}

fn standings() -> Vec<Standing> {
    let deadline = Some(at("2026-12-01T09:00:00Z"));
    vec![
        Standing::Offered,
        Standing::ForTeachers,
        Standing::Busy(task(Phase::Fetching { done: 1, total: 2, seconds_left: None })),
        Standing::Coming { deadline, prepared: true },
        Standing::Here,
        Standing::Newer { version: version("1.3"), deadline, prepared: false },
        Standing::Leaving { deadline },
        Standing::Restart,
        Standing::Blocked(Reason::TooLarge { needed: 9_000_000_000, free: 1, reserve: 1 }),
    ]
}

struct World {
    machine: mirabelle_manifests::MachineId,
    college: SiteId,
}

impl World {
    fn new() -> Self {
        Self { machine: "b12-03".parse().unwrap(), college: "57001".parse().unwrap() }
    }

    fn frame(&self, language: Language, how: SignedIn) -> Frame<'_> {
        let asker = if how == SignedIn::No { Asker::Anyone } else { Asker::Teacher };
        Frame {
            language,
            path: "/search?q=%22x",
            csrf: "c5rf",
            now: at("2026-11-26T10:00:00Z"),
            zone: TimeZone::get("Europe/Paris").unwrap(),
            college: &self.college,
            machine: &self.machine,
            person: Person { asker, how },
            can_sign_in: true,
            active: 1,
            updates: 2,
            silent_since: Some(at("2026-11-20T10:00:00Z")),
            notice: Some(Notice::Kept { until: at("2026-12-24T10:00:00Z") }),
        }
    }
}

fn signed_in() -> SignedIn {
    SignedIn::Provider {
        until: at("2026-11-26T18:00:00Z"),
        name: Some(HOSTILE.to_owned()),
        colleges: vec!["57001".parse().unwrap()],
    }
}

fn view<'a>(item: &'a Item, reasons: &'a [Reason]) -> PackageView<'a> {
    PackageView {
        item,
        said: StorePage {
            author: Some(HOSTILE.to_owned()),
            homepage: Some("https://example.org/".to_owned()),
            description: Some(text(&format!("Un.\n\n{HOSTILE}"))),
            news: Some(text(HOSTILE)),
            screenshots: vec![Screenshot {
                caption: text(HOSTILE),
                image: Media { kind: MediaKind::Png, sha256: Digest::of(b"s"), size: 9 },
            }],
        },
        cost: Some(Cost { in_college: false, wan_bytes: 3_000_000, seconds: Some(70) }),
        reasons,
        history: vec![Past {
            at: at("2026-11-01T10:00:00Z"),
            package: item.package.clone(),
            title: item.title.clone(),
            what: Happened::WentBack { from: version("1.3"), to: version("1.2") },
        }],
        newest: Some(version("1.3")),
    }
}

fn orders() -> Vec<OrderStatus> {
    let wanted = Wanted {
        by: at("2026-12-01T09:00:00Z"),
        keep: Some(Keep { sequence: 2, until: at("2027-01-01T00:00:00Z") }),
        package: name("geogebra"),
        room: "B12".parse().unwrap(),
    };
    let order = Order {
        college: "57001".parse().unwrap(),
        id: RequestId::of(&[1; 16]),
        ordered: at("2026-11-26T09:00:00Z"),
        person: serde_json::from_str(&format!("\"{}\"", "ab".repeat(32))).unwrap(),
        wanted,
    };
    let machines = [
        ("b12-01", Progress::Done { version: version("1.2") }),
        ("b12-02", Progress::Waiting),
        ("b12-03", Progress::Fetching),
        ("b12-04", Progress::Refused { reason: Reason::Blocked }),
        ("b12-05", Progress::Failed),
    ];
    let machines =
        machines.into_iter().map(|(machine, progress)| (machine.parse().unwrap(), progress)).collect();
    vec![OrderStatus {
        order,
        assessment: Some(assessment(Ready::Late { at: at("2026-12-02T09:00:00Z") })),
        machines,
    }]
}

fn assessment(ready: Ready) -> Assessment {
    Assessment {
        ready,
        reasons: vec![Reason::Blocked],
        version: Some(version("1.2")),
        machines: 5,
        without_room: 1,
        wan_bytes: 4_000_000,
        wake_at: Some(at("2026-12-01T06:00:00Z")),
    }
}

/// Every page, by name.
fn pages(language: Language) -> Vec<(String, String)> {
    let world = World::new();
    let frame = |how: SignedIn| world.frame(language, how);
    let mut hostile = item("hostile");
    (hostile.title, hostile.summary, hostile.licence) = (text(HOSTILE), text(HOSTILE), HOSTILE.to_owned());
    let mut items: Vec<Item> = standings()
        .into_iter()
        .enumerate()
        .map(|(number, standing)| Item { standing, ..item(&format!("p{number}")) })
        .chain([installed("here"), hostile])
        .collect();
    items[0].followed = true;
    items[0].icon = None;
    let all: Vec<&Item> = items.iter().collect();
    let reasons = [Reason::OnlyOffered, Reason::TeachersOnly { asker: Asker::Anyone }];
    let mut shown: Vec<(String, maud::Markup)> = Vec::new();
    let discovered = Discover {
        shelves: vec![
            Shelf { title: ShelfTitle::Featured, items: all.clone() },
            Shelf { title: ShelfTitle::All, items: all.clone() },
        ],
        categories: vec![("Education".to_owned(), 3), (HOSTILE.to_owned(), 1)],
        subjects: vec![("mathematics".parse().unwrap(), 2)],
        levels: vec![("6e".parse().unwrap(), 2)],
    };
    shown.push(("discover".into(), discover(&frame(SignedIn::No), &discovered)));
    let shelf = Shelf { title: ShelfTitle::Category(HOSTILE.to_owned()), items: all.clone() };
    let part = PageOf { number: 2, pages: 3 };
    shown.push(("shelf".into(), shelf_page(&frame(signed_in()), &shelf, part, "/category/x")));
    for question in ["", HOSTILE] {
        let found: &[&Item] = if question.is_empty() { &all } else { &[] };
        shown.push((format!("search {question}"), search(&frame(SignedIn::No), question, found)));
    }
    for item in &items {
        shown
            .push((format!("package {}", item.package), package(&frame(signed_in()), &view(item, &reasons))));
    }
    let mut kept = installed("kept");
    kept.installed.as_mut().unwrap().kept_until = Some(at("2026-12-24T10:00:00Z"));
    shown.push(("package kept".into(), package(&frame(signed_in()), &view(&kept, &reasons))));
    let history = view(&items[0], &[]).history;
    shown.push(("mine".into(), mine(&frame(signed_in()), &all, &history)));
    shown.push(("updates".into(), updates(&frame(SignedIn::No), &all, &[&kept])));
    shown.push(("no updates".into(), updates(&frame(SignedIn::No), &[], &[])));
    let tasks: Vec<Task> = phases()
        .into_iter()
        .enumerate()
        .map(|(number, phase)| Task { id: number as u64, ..task(phase) })
        .collect();
    shown.push(("activity".into(), activity(&frame(SignedIn::Account), &tasks)));
    let colleges = ["57001".parse().unwrap()];
    let draft = |wrong: Vec<Field>, assessment: Option<Assessment>| {
        Some(Draft { room: HOSTILE.to_owned(), wrong, assessment, ..Draft::default() })
    };
    let soon = Ready::Yes { at: at("2026-11-30T09:00:00Z") };
    for (number, draft) in [
        None,
        draft(vec![Field::College, Field::Room, Field::Package, Field::When, Field::KeepUntil], None),
        draft(vec![], Some(assessment(soon))),
        draft(vec![], Some(assessment(Ready::No))),
    ]
    .into_iter()
    .enumerate()
    {
        let rooms_shown = Rooms {
            packages: all.clone(),
            colleges: &colleges,
            orders: orders(),
            draft,
            trouble: Some(Trouble::LinkCut),
        };
        shown.push((format!("rooms {number}"), rooms(&frame(signed_in()), &rooms_shown)));
    }
    let nobody = Rooms {
        packages: vec![],
        colleges: &[],
        orders: vec![],
        draft: None,
        trouble: Some(Trouble::NeedsSignIn),
    };
    shown.push(("rooms nobody".into(), rooms(&frame(SignedIn::No), &nobody)));
    for trouble in [None, Some(Trouble::CodeUnknown), Some(Trouble::ProviderSilent)] {
        shown.push((format!("sign-in {trouble:?}"), sign_in(&frame(SignedIn::No), trouble)));
    }
    let mut choices = Choices::default();
    choices.choose(name("geogebra"), Choice { at: at("2026-11-01T10:00:00Z"), wanted: true });
    let code = Some("K7QF-2M9X-PWTD-8RSA".to_owned());
    let own = Me {
        pseudonym: "ab".repeat(32),
        choices: &choices,
        code,
        offline_days: 14,
        trouble: Some(Trouble::LinkCut),
    };
    shown.push(("me".into(), me(&frame(signed_in()), &own)));
    shown.push(("about".into(), about(&frame(SignedIn::No))));
    shown.push(("message".into(), message(&frame(SignedIn::No), Trouble::Inside)));
    shown.into_iter().map(|(name, markup)| (name, markup.into_string())).collect()
}

fn both() -> Vec<(String, String)> {
    pages(Language::French).into_iter().chain(pages(Language::English)).collect()
}

/// The start tags of a page.
fn tags(html: &str) -> Vec<&str> {
    html.split('<')
        .skip(1)
        .filter(|tag| !tag.starts_with(['/', '!']))
        .map(|tag| tag.split('>').next().unwrap())
        .collect()
}

#[test]
fn what_a_package_says_of_itself_is_text_on_every_page() {
    for (name, html) in both() {
        assert!(!html.contains("<script>"), "{name}");
        let scripts: Vec<&str> = tags(&html).into_iter().filter(|tag| tag.starts_with("script")).collect();
        assert_eq!(scripts, [r#"script src="/assets/store.js" defer"#], "{name}");
        for tag in tags(&html) {
            assert!(
                !tag.contains(" style=") && !tag.contains(" on") && !tag.contains("javascript:"),
                "{name}: {tag}"
            );
        }
    }
}

#[test]
fn every_form_carries_its_secret_and_every_field_its_label() {
    for (name, html) in both() {
        for form in html.split("<form").skip(1).map(|form| form.split("</form>").next().unwrap()) {
            let posts = form.contains(r#"method="post""#);
            assert_eq!(posts, form.contains(r#"name="csrf" value="c5rf""#), "{name}: {form}");
        }
        for tag in tags(&html).into_iter().filter(|tag| tag.starts_with("input") || tag.starts_with("select"))
        {
            if tag.contains(r#"type="hidden""#) {
                continue;
            }
            let id = tag.split(r#"id=""#).nth(1).and_then(|rest| rest.split('"').next());
            let id = id.unwrap_or_else(|| panic!("{name}: {tag} has no id"));
            assert!(html.contains(&format!(r#"for="{id}""#)), "{name}: {tag} has no label");
        }
    }
}

#[test]
fn headings_are_in_order_and_ids_are_few() {
    for (name, html) in both() {
        let levels: Vec<u32> = tags(&html)
            .into_iter()
            .filter_map(|tag| tag.strip_prefix('h')?.split([' ', '>']).next()?.parse().ok())
            .collect();
        assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1, "{name}: {levels:?}");
        let mut before = 0;
        for level in levels {
            assert!(level <= before + 1 || (level == 2 && before == 0), "{name}: h{level} after h{before}");
            before = level;
        }
        let mut ids: Vec<&str> =
            html.split(r#" id=""#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "{name}: an id twice");
    }
}

#[test]
fn pages_are_in_the_language_that_they_say() {
    for (french, english) in pages(Language::French).into_iter().zip(pages(Language::English)) {
        assert!(french.1.contains(r#"<html lang="fr">"#) && english.1.contains(r#"<html lang="en">"#));
        assert_ne!(french.1, english.1);
        for word in ["Installer", "Ouvrir ma session", "Mises à jour"] {
            assert!(!english.1.contains(word), "{}: {word}", english.0);
        }
        for word in ["Sign in", "Updates<", "Discover"] {
            assert!(!french.1.contains(word), "{}: {word}", french.0);
        }
    }
}

#[test]
fn a_card_and_the_packages_page_say_the_same() {
    let world = World::new();
    for language in [Language::French, Language::English] {
        for standing in standings() {
            for how in [SignedIn::No, signed_in()] {
                let frame = world.frame(language, how);
                let item = Item { standing: standing.clone(), ..item("p") };
                let (card, page) = (parts::card(&frame, &item).0, package(&frame, &view(&item, &[])).0);
                let word = language.standing(&standing);
                assert!(card.contains(&word) && page.contains(&word), "{word}");
                let action = parts::action(&frame, &item).0;
                assert!(card.contains(&action) && page.contains(&action), "{action}");
            }
        }
    }
}

#[test]
fn whatever_is_blocked_says_why_and_who_can_unblock_it() {
    let world = World::new();
    let frame = world.frame(Language::French, SignedIn::No);
    for reason in [
        Reason::NotDeployed { college: "57001".parse().unwrap() },
        Reason::Blocked,
        Reason::Paused { sequence: 1, since: at("2026-11-01T10:00:00Z"), why: HOSTILE.to_owned() },
        Reason::TooLarge { needed: 9, free: 1, reserve: 1 },
        Reason::Unresolvable { why: HOSTILE.to_owned() },
    ] {
        let item = Item { standing: Standing::Blocked(reason.clone()), ..item("p") };
        let page = package(&frame, &view(&item, std::slice::from_ref(&reason))).0;
        assert!(page.contains("Pourquoi ?"), "{reason}");
        assert!(page.contains(frame.language.who_can_unblock(&reason)), "{reason}");
    }
}

#[test]
fn a_first_page_of_a_large_catalogue_stays_small() {
    let world = World::new();
    let items: Vec<Item> = (0..1000).map(|number| item(&format!("package-{number}"))).collect();
    let shelf = Shelf { title: ShelfTitle::All, items: items.iter().take(48).collect() };
    let html = shelf_page(
        &world.frame(Language::French, SignedIn::No),
        &shelf,
        PageOf { number: 1, pages: 21 },
        "/all",
    )
    .0;
    assert!(html.len() < 120_000, "{} bytes", html.len());
}
