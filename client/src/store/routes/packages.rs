//! A package's page, and what its buttons do.

use std::sync::Arc;

use axum::extract::{Path, State};
use jiff::civil;
use mirabelle_identity::Action;
use mirabelle_manifests::{Digest, Instant, PackageName, StorePage};
use serde::Deserialize;

use super::{Found, Page, Sent, Visitor, html, see};
use crate::agent::evening::Measured;
use crate::agent::kept::MEASURED;
use crate::agent::socket::Request;
use crate::store::Store;
use crate::store::activity::Asked;
use crate::store::pages;
use crate::store::view::{Cost, Item, Notice, PackageView, TaskVerb, Trouble};

/// The most of what a node says a release costs.
const MAX_ESTIMATE_BYTES: u64 = 4096;
/// What happened to it that is shown.
const MAX_PAST: usize = 10;

/// `GET <node>/estimate/<release>`
#[derive(Deserialize)]
struct Estimate {
    here: bool,
    wan_bytes: u64,
    seconds: Option<u64>,
}

pub(in crate::store) async fn show(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Page {
    let found = store.find(&visitor).await?;
    let item = name
        .parse::<PackageName>()
        .ok()
        .and_then(|name| found.items.iter().find(|item| item.package == name));
    let Some(item) = item else { return store.trouble(&visitor, Trouble::NotFound).await };
    let release = found.stock.releases.get(&item.package).copied();
    let cost = match release {
        Some(release) => store.cost(item, release).await,
        None => None,
    };
    let reasons = found.stock.reasons.get(&item.package).map_or(&[][..], Vec::as_slice);
    let mut history = store.past(&found);
    history.retain(|past| past.package == item.package);
    history.truncate(MAX_PAST);
    let shown = PackageView {
        item,
        said: store.said(item).await,
        cost,
        reasons,
        history,
        newest: found.stock.newest.get(&item.package).cloned(),
    };
    html(&pages::package(&store.frame(&visitor, &found), &shown))
}

impl Store {
    /// What a package's own page says; nothing, while that cannot be had.
    async fn said(&self, item: &Item) -> StorePage {
        let Some(page) = item.page else { return StorePage::default() };
        let bytes = self.media(page).await.unwrap_or_default();
        StorePage::parse(&bytes).unwrap_or_default()
    }

    /// What having a release costs, if the node says so: over the link, and then from the node, as long as installs took here before.
    async fn cost(&self, item: &Item, release: Digest) -> Option<Cost> {
        let estimate = self.node()?.bytes(&format!("estimate/{release}"), MAX_ESTIMATE_BYTES).await.ok()?;
        let Estimate { here, wan_bytes, seconds } = serde_json::from_slice(&estimate).ok()?;
        let measured: Measured = self.layout.kept(MEASURED).unwrap_or_default();
        let installing = measured.expect_of(&item.package, item.installed_bytes, false).as_secs();
        let seconds = seconds.map(|carrying| carrying.saturating_add(installing));
        Some(Cost { in_college: here, wan_bytes, seconds })
    }
}

pub(in crate::store) async fn act(
    State(store): State<Arc<Store>>,
    Path((name, action)): Path<(String, String)>,
    sent: Sent,
) -> Page {
    let visitor = &sent.visitor;
    let found = store.find(visitor).await?;
    let item = name
        .parse::<PackageName>()
        .ok()
        .and_then(|name| found.items.iter().find(|item| item.package == name));
    let Some(item) = item else { return store.trouble(visitor, Trouble::NotFound).await };
    let package = item.package.clone();
    let back = format!("/package/{package}");
    let one = || vec![package.clone()];
    match action.as_str() {
        "open" => {
            let opened = visitor.session.companion.open(package.clone()).await;
            visitor.session.note(if opened { Notice::Opened } else { Notice::CannotOpen });
            see(&back)
        }
        "install" => store.begin(&sent, item, TaskVerb::Install, Request::Install { packages: one() }).await,
        "update" => store.begin(&sent, item, TaskVerb::Update, Request::Install { packages: one() }).await,
        "remove" => store.begin(&sent, item, TaskVerb::Remove, Request::Remove { packages: one() }).await,
        "release" => {
            let answer =
                store.wishes.ask(Request::Release { package: package.clone() }, visitor.who().asker).await;
            if answer.code == 0 {
                visitor.session.note(Notice::Released);
                see(&back)
            } else {
                store.trouble(visitor, Trouble::NotHerCollege).await
            }
        }
        "keep" | "back" => {
            let Some(until) = end_of_day(&found, sent.field("until")) else {
                return store.trouble(visitor, Trouble::Forged).await;
            };
            let Some(installed) = &item.installed else {
                return store.trouble(visitor, Trouble::NotFound).await;
            };
            let sequence = match (action.as_str(), &installed.previous) {
                ("keep", _) => installed.sequence,
                (_, Some((previous, _))) => *previous,
                (_, None) => return store.trouble(visitor, Trouble::NotFound).await,
            };
            let request = Request::Keep { package: package.clone(), sequence, until };
            if action == "back" {
                return store.begin(&sent, item, TaskVerb::GoBack, request).await;
            }
            let answer = store.wishes.ask(request, visitor.who().asker).await;
            if answer.code == 0 {
                visitor.session.note(Notice::Kept { until });
                see(&back)
            } else {
                store.trouble(visitor, Trouble::NotHerCollege).await
            }
        }
        _ => store.trouble(visitor, Trouble::NotFound).await,
    }
}

impl Store {
    /// Queues something, and remembers it for whoever wants her choices to follow her.
    async fn begin(&self, sent: &Sent, item: &Item, verb: TaskVerb, request: Request) -> Page {
        let visitor = &sent.visitor;
        let asked = Asked { verb, package: item.package.clone(), title: item.title.clone(), request };
        if self.activity.ask(asked, visitor.who()).is_none() {
            return self.trouble(visitor, Trouble::TooManyAttempts).await;
        }
        visitor.session.note(Notice::Begun);
        let wanted = match verb {
            TaskVerb::Install => Some(true),
            TaskVerb::Remove => Some(false),
            TaskVerb::Update | TaskVerb::GoBack => None,
        };
        if let Some((person, wanted)) = visitor.session.person().zip(wanted) {
            let action = Action::Choose { package: item.package.clone(), wanted };
            // What she chose is on its way whatever becomes of this.
            if let Err(trouble) = self.change_choices(&person, action).await {
                tracing::info!(?trouble, "a choice could not be kept for elsewhere");
            }
        }
        see("/activity")
    }
}

/// The end of a day that a form names, in the college's time zone.
pub(super) fn end_of_day(found: &Found, text: &str) -> Option<Instant> {
    let date: civil::Date = text.parse().ok()?;
    let end = date.at(23, 59, 0, 0).to_zoned_datetime(found.stock.zone.clone()).ok()?;
    Some(end.timestamp()).filter(|end| *end > Instant::now())
}
