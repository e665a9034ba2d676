//! The page for whoever stands in front of the node: what it holds, how fresh that is, what the link does now and did over the
//! day, what somebody must do.
//!
//! French first, English with `?lang=en` or for whoever's browser asks for it. One page without a script, that a keyboard and a
//! screen reader get through; whatever a colour says, words say too.
//!
//! Threats: everything on it is text to maud, which escapes it; a content security policy lets nothing else in. It shows no
//! person and no single machine.

use std::sync::Arc;

use hyper::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use mirabelle_manifests::Instant;
use mirabelle_transfer::serve::{Body, body, problem};
use mirabelle_transfer::{LinkReport, LinkState};
use tokio::task::spawn_blocking;

use super::Node;
use super::picture::day;
use super::words::{Language, Words};
use crate::care::Raised;
use crate::disk::Room;
use crate::mirror::{Step, Task, read_plan};
use crate::site::State;

const STYLE: &str = include_str!("page.css");
/// Nothing but the page itself, its style among it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page shows.
pub(super) struct Shown {
    pub(super) college: String,
    pub(super) now: Instant,
    pub(super) zone: TimeZone,
    pub(super) state: State,
    pub(super) tasks: Vec<Task>,
    pub(super) alarms: Vec<Raised>,
    pub(super) link: LinkReport,
    pub(super) room: Option<Room>,
    /// Machines that asked within an hour, and within a day.
    pub(super) machines: (usize, usize),
}

pub(super) async fn answer<B>(node: &Arc<Node>, request: &Request<B>) -> Response<Body> {
    let reading = {
        let node = node.clone();
        spawn_blocking(move || Shown::of(&node, Instant::now()))
    };
    let Ok(shown) = reading.await else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made");
    };
    let asked = request.headers().get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let language = Language::of(request.uri().query(), asked);
    let mut response = Response::new(body(shown.page(language).into_string()));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language.code()));
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("vary", "accept-language"),
    ] {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

impl Shown {
    fn of(node: &Node, now: Instant) -> Self {
        let within = |hours| node.seen.within(SignedDuration::from_hours(hours), now);
        Self {
            college: node.config.college.to_string(),
            now,
            zone: node.zone(),
            state: node.site.state(),
            tasks: read_plan(&node.site.path("plan.json")),
            alarms: node.alarms.raised().into_values().collect(),
            link: node.link.report(now),
            room: node.disk.room_lately().ok(),
            machines: (within(1), within(24)),
        }
    }

    pub(super) fn page(&self, language: Language) -> Markup {
        let words = language.words();
        html! {
            (DOCTYPE)
            html lang=(language.code()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (words.title) " · " (self.college) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    a.skip href="#content" { (words.skip) }
                    header {
                        p.name { "Mirabelle" }
                        h1 { (words.title) " " (self.college) }
                        nav aria-label=(words.languages) {
                            @for other in [Language::French, Language::English] {
                                a href=(format!("?lang={}", other.code())) lang=(other.code())
                                    aria-current=[(other == language).then_some("true")] { (other.name()) }
                            }
                        }
                    }
                    main #content {
                        (self.headline(words))
                        (self.alarms(language))
                        div.columns {
                            (self.freshness(words))
                            (self.disk(words))
                            (self.machines(words))
                        }
                        (self.link(words))
                        (self.coming(words))
                        (self.holding(words))
                    }
                    footer { (words.as_of) " " (self.time(self.now)) " · " a href=(format!("?lang={}", language.code())) { (words.again) } }
                }
            }
        }
    }

    fn headline(&self, words: &Words) -> Markup {
        let stale = self.state.snapshot > 0 && self.state.is_stale(self.now);
        let (class, mark, text) = if self.state.snapshot == 0 {
            ("wait", "…", words.nothing_yet)
        } else if stale {
            ("bad", "!", words.stale)
        } else if self.tasks.iter().any(|task| task.must) {
            ("wait", "↓", words.complete_and_more_comes)
        } else {
            ("good", "✓", words.complete)
        };
        html! {
            p.headline.(class) role="status" { span.mark aria-hidden="true" { (mark) } " " (text) }
        }
    }

    fn alarms(&self, language: Language) -> Markup {
        let words = language.words();
        html! {
            @if !self.alarms.is_empty() {
                section.alarms aria-labelledby="alarms" {
                    h2 #alarms { (words.to_do) }
                    ul {
                        @for raised in &self.alarms {
                            @let (what, to_do) = language.alarm(&raised.alarm, |at| self.time(at));
                            li { strong { (what) } " " (to_do) " " span.since { (words.since) " " (self.time(raised.since)) } }
                        }
                    }
                }
            }
        }
    }

    fn freshness(&self, words: &Words) -> Markup {
        let time =
            |instant: Option<Instant>| instant.map_or(words.never.to_owned(), |instant| self.time(instant));
        html! {
            section aria-labelledby="freshness" {
                h2 #freshness { (words.freshness) }
                dl {
                    dt { (words.catalogue) } dd { (self.state.snapshot) }
                    dt { (words.complete_since) } dd { (time(self.state.complete_since)) }
                    dt { (words.looked) } dd { (time(self.state.refreshed)) }
                    dt { (words.valid_until) } dd { (time(self.state.fresh_until)) }
                }
                @if let Some(failure) = &self.state.last_failure {
                    details { summary { (words.last_look_failed) } pre { (failure) } }
                }
            }
        }
    }

    fn disk(&self, words: &Words) -> Markup {
        html! {
            section aria-labelledby="disk" {
                h2 #disk { (words.disk) }
                @if let Some(room) = &self.room {
                    @let used = room.capacity.saturating_sub(room.left);
                    (meter(words.used, used, room.capacity))
                    p { (words.bytes(room.left)) " " (words.left_of) " " (words.bytes(room.capacity)) }
                }
            }
        }
    }

    fn machines(&self, words: &Words) -> Markup {
        html! {
            section aria-labelledby="machines" {
                h2 #machines { (words.machines) }
                dl {
                    dt { (words.within_an_hour) } dd { (self.machines.0) }
                    dt { (words.within_a_day) } dd { (self.machines.1) }
                }
            }
        }
    }

    fn link(&self, words: &Words) -> Markup {
        let link = &self.link;
        let state = match link.state {
            LinkState::Idle => words.link_idle,
            LinkState::Open => words.link_open,
            LinkState::Limited => words.link_limited,
            LinkState::Yielding => words.link_yielding,
            LinkState::Closed => words.link_closed,
        };
        html! {
            section aria-labelledby="link" {
                h2 #link { (words.link) }
                p { strong { (state) } " " (words.bytes(link.rate)) "/s"
                    @if let Some(limit) = link.limit { ", " (words.at_most) " " (words.bytes(limit)) "/s" }
                    @if let Some(rule) = &link.rule { " (" (rule) ")" }
                    @if let Some(delay) = link.queueing_delay_ms { ", " (words.waiting) " " (format!("{delay:.0}")) " ms" }
                }
                @if let Some(budget) = link.budget {
                    (meter(words.budget, link.spent, budget))
                    p { (words.bytes(link.spent)) " " (words.spent_of) " " (words.bytes(budget)) }
                }
                (day(&link.last_day, self.now, &self.zone, words))
            }
        }
    }

    fn coming(&self, words: &Words) -> Markup {
        html! {
            @if !self.tasks.is_empty() {
                section aria-labelledby="coming" {
                    h2 #coming { (words.coming) }
                    div.wide tabindex="0" role="region" aria-labelledby="coming" { table {
                        thead { tr { th scope="col" { (words.software) } th scope="col" { (words.version) } th.number scope="col" { (words.size) } th scope="col" { (words.state) } } }
                        tbody {
                            @for task in &self.tasks {
                                tr {
                                    th scope="row" { (task.package) }
                                    td { (task.version) }
                                    td.number { (words.bytes(task.bytes)) }
                                    td { (step(task, words)) }
                                }
                            }
                        }
                    } }
                }
            }
        }
    }

    fn holding(&self, words: &Words) -> Markup {
        let sum: u64 = self.state.releases.iter().map(|held| held.bytes).sum();
        html! {
            section aria-labelledby="holding" {
                h2 #holding { (words.holding) }
                p { (self.state.releases.len()) " " (words.releases) ", " (words.bytes(sum)) }
                @if !self.state.releases.is_empty() {
                    div.wide tabindex="0" role="region" aria-labelledby="holding" { table {
                        thead { tr { th scope="col" { (words.software) } th scope="col" { (words.version) } th scope="col" { (words.system) } th.number scope="col" { (words.size) } th.number scope="col" { (words.crossed) } } }
                        tbody {
                            @for held in &self.state.releases {
                                tr {
                                    th scope="row" { (held.package) }
                                    td { (held.version) }
                                    td { (held.platform) }
                                    td.number { (words.bytes(held.bytes)) }
                                    td.number { @if let Some(came) = &held.came { (words.bytes(came.received_bytes)) } }
                                }
                            }
                        }
                    } }
                }
            }
        }
    }

    fn time(&self, instant: Instant) -> String {
        let zoned = instant.to_zoned_datetime(self.zone.clone());
        zoned.strftime("%d/%m/%Y %H:%M").to_string()
    }
}

fn step(task: &Task, words: &Words) -> &'static str {
    match task.state {
        Step::Waiting if !task.must => words.in_good_time,
        Step::Waiting => words.next,
        Step::UnderWay => words.under_way,
        Step::Failed => words.failed,
        Step::NoRoom => words.no_room,
    }
}

/// A bar with its words.
fn meter(label: &str, of: u64, whole: u64) -> Markup {
    let percent = of.saturating_mul(100) / whole.max(1);
    let class = match percent {
        ..80 => "good",
        80..95 => "wait",
        _ => "bad",
    };
    html! {
        svg.meter.(class) viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(format!("{label} {percent} %")) {
            rect.ground width="100" height="4" {}
            rect.bar width=(percent.min(100)) height="4" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use mirabelle_transfer::Link;

    use super::*;

    #[test]
    fn says_everything_in_both_languages_and_escapes_what_others_wrote() {
        let now: Instant = "2026-11-26T08:00:00Z".parse().unwrap();
        let mut shown = Shown {
            college: "57001".to_owned(),
            now,
            zone: TimeZone::get("Europe/Paris").unwrap(),
            state: State { last_failure: Some("<script>".to_owned()), ..State::default() },
            tasks: Vec::new(),
            alarms: Vec::new(),
            link: Link::unlimited().report(now),
            room: None,
            machines: (3, 40),
        };
        let page = shown.page(Language::French).into_string();
        assert!(page.contains("Rien n’est encore servi") && page.contains("lang=\"fr\""), "{page}");
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(page.contains("26/11/2026 09:00"), "the college's clock");
        shown.state.snapshot = 4;
        shown.state.fresh_until = Some(now + SignedDuration::from_hours(1));
        assert!(shown.page(Language::English).into_string().contains("Everything is here"));
        shown.state.fresh_until = Some(now);
        assert!(shown.page(Language::English).into_string().contains("no longer fresh"));
    }

    #[test]
    fn the_language_is_chosen_then_asked_for_then_french() {
        for (query, asked, language) in [
            (None, None, Language::French),
            (None, Some("en-GB,en;q=0.9"), Language::English),
            (None, Some("de,en;q=0.5"), Language::English),
            (None, Some("fr-FR,en;q=0.5"), Language::French),
            (Some("lang=fr"), Some("en"), Language::French),
            (Some("lang=en"), Some("fr"), Language::English),
            (Some("lang=xx"), Some("xx"), Language::French),
        ] {
            assert_eq!(Language::of(query, asked), language, "{query:?} {asked:?}");
        }
    }
}
