//! Lists: what there is to discover, what was found, what is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode};
use mirabelle_manifests::{Digest, Tag};
use serde::Deserialize;

use super::{Found, Page, Visitor, html};
use crate::generation::{Generation, Installed};
use crate::store::Store;
use crate::store::pages;
use crate::store::view::{
    Discover, Happened, Item, PageOf, Past, Shelf, ShelfTitle, Standing, Trouble, WhoMay,
};

/// Cards of a shelf on the first page, and of a page of a long list.
const ON_A_SHELF: usize = 8;
const ON_A_PAGE: usize = 48;
/// What happened that is shown.
const MAX_PAST: usize = 50;

/// True for what is to be discovered: what may be had here, or is here.
fn is_offered(item: &Item) -> bool {
    item.who != WhoMay::Nobody || item.installed.is_some()
}

/// The beginning of a shelf.
fn first_of(title: ShelfTitle, mut items: Vec<&Item>) -> Shelf<'_> {
    items.truncate(ON_A_SHELF);
    Shelf { title, items }
}

pub(in crate::store) async fn discover(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let found = store.find(&visitor).await?;
    let offered: Vec<&Item> = found.items.iter().filter(|item| is_offered(item)).collect();
    let featured = found
        .stock
        .featured
        .iter()
        .filter_map(|name| offered.iter().find(|item| item.package == *name).copied());
    let mut new: Vec<&Item> = offered.iter().copied().filter(|item| item.is_new).collect();
    new.sort_by_key(|item| std::cmp::Reverse(item.approved));
    let mut shelves = vec![
        first_of(ShelfTitle::FollowedHere, offered.iter().copied().filter(|item| item.followed).collect()),
        first_of(ShelfTitle::Featured, featured.collect()),
    ];
    // Nothing stands on two shelves.
    for (title, items) in [(ShelfTitle::New, new), (ShelfTitle::All, offered.clone())] {
        let known = |item: &&Item| {
            shelves.iter().any(|shelf| shelf.items.iter().any(|other| other.package == item.package))
        };
        let others = items.into_iter().filter(|item| !known(item)).collect();
        shelves.push(first_of(title, others));
    }
    let mut levels = count(offered.iter().flat_map(|item| item.levels.iter().cloned()));
    // As a school counts: the sixth comes before the third.
    levels.reverse();
    let shown = Discover {
        shelves,
        categories: count(offered.iter().flat_map(|item| item.categories.iter().cloned())),
        subjects: count(offered.iter().flat_map(|item| item.subjects.iter().cloned())),
        levels,
    };
    html(&pages::discover(&store.frame(&visitor, &found), &shown))
}

fn count<T: Ord>(names: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().collect()
}

#[derive(Deserialize)]
pub(in crate::store) struct Part {
    #[serde(default)]
    page: Option<usize>,
}

pub(in crate::store) async fn all(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    Query(part): Query<Part>,
) -> Page {
    shelf(&store, &visitor, ShelfTitle::All, &part, |_| true).await
}

pub(in crate::store) async fn category(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(part): Query<Part>,
) -> Page {
    shelf(&store, &visitor, ShelfTitle::Category(name.clone()), &part, |item| item.categories.contains(&name))
        .await
}

pub(in crate::store) async fn subject(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(part): Query<Part>,
) -> Page {
    let Ok(tag) = name.parse::<Tag>() else { return store.trouble(&visitor, Trouble::NotFound).await };
    shelf(&store, &visitor, ShelfTitle::Subject(tag.clone()), &part, |item| item.subjects.contains(&tag))
        .await
}

pub(in crate::store) async fn level(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(part): Query<Part>,
) -> Page {
    let Ok(tag) = name.parse::<Tag>() else { return store.trouble(&visitor, Trouble::NotFound).await };
    shelf(&store, &visitor, ShelfTitle::Level(tag.clone()), &part, |item| item.levels.contains(&tag)).await
}

async fn shelf(
    store: &Store,
    visitor: &Visitor,
    title: ShelfTitle,
    part: &Part,
    belongs: impl Fn(&Item) -> bool,
) -> Page {
    let found = store.find(visitor).await?;
    let items: Vec<&Item> =
        found.items.iter().filter(|item| is_offered(item)).filter(|item| belongs(item)).collect();
    let pages = items.len().div_ceil(ON_A_PAGE).max(1);
    let number = part.page.unwrap_or(1).clamp(1, pages);
    let items = items.into_iter().skip((number - 1) * ON_A_PAGE).take(ON_A_PAGE).collect();
    let path = visitor.path.split('?').next().unwrap_or("/all");
    let shelf = Shelf { title, items };
    html(&pages::shelf_page(&store.frame(visitor, &found), &shelf, PageOf { number, pages }, path))
}

#[derive(Deserialize)]
pub(in crate::store) struct Question {
    #[serde(default)]
    q: String,
}

/// What was found; only that, for a page that asks while somebody types.
pub(in crate::store) async fn search(
    State(store): State<Arc<Store>>,
    visitor: Visitor,
    headers: HeaderMap,
    Query(question): Query<Question>,
) -> Page {
    let found = store.find(&visitor).await?;
    let question = question.q.trim();
    let items: Vec<&Item> =
        found.stock.index.find(question).into_iter().filter_map(|number| found.items.get(number)).collect();
    let frame = store.frame(&visitor, &found);
    if headers.contains_key("x-fragment") {
        html(&pages::results(&frame, question, &items))
    } else {
        html(&pages::search(&frame, question, &items))
    }
}

pub(in crate::store) async fn mine(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let found = store.find(&visitor).await?;
    let mine = |item: &&Item| {
        item.installed.is_some()
            || matches!(item.standing, Standing::Coming { .. } | Standing::Busy(_) | Standing::Restart)
    };
    let items: Vec<&Item> = found.items.iter().filter(mine).collect();
    let mut past = store.past(&found);
    past.truncate(MAX_PAST);
    html(&pages::mine(&store.frame(&visitor, &found), &items, &past))
}

pub(in crate::store) async fn updates(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let found = store.find(&visitor).await?;
    let newer: Vec<&Item> =
        found.items.iter().filter(|item| matches!(item.standing, Standing::Newer { .. })).collect();
    let is_kept =
        |item: &&Item| item.installed.as_ref().is_some_and(|installed| installed.kept_until.is_some());
    let kept: Vec<&Item> = found.items.iter().filter(is_kept).collect();
    html(&pages::updates(&store.frame(&visitor, &found), &newer, &kept))
}

/// A picture that the catalogue, or a package's page, names.
pub(in crate::store) async fn media(
    State(store): State<Arc<Store>>,
    _visitor: Visitor,
    Path(digest): Path<String>,
) -> Response<Body> {
    if let Ok(digest) = digest.parse::<Digest>() {
        return store.media_response(digest).await;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

impl Store {
    /// What happened here, the last first: from the generations that are still here.
    pub(in crate::store) fn past(&self, found: &Found) -> Vec<Past> {
        let generations = self.layout.all_generations().unwrap_or_default();
        let mut past = Vec::new();
        let none = Generation::none();
        for (number, generation) in generations.iter().enumerate() {
            let before = generations.iter().find(|other| other.number == generation.parent).unwrap_or(&none);
            // What came before the oldest that is here is not known.
            let Some(at) = generation.created.filter(|_| number > 0 || generation.parent == 0) else {
                continue;
            };
            let packages = before.packages.keys().chain(generation.packages.keys());
            let packages: std::collections::BTreeSet<_> = packages.collect();
            for package in packages {
                let what = happened(before.packages.get(package), generation.packages.get(package));
                let title =
                    found.items.iter().find(|item| item.package == *package).map(|item| item.title.clone());
                let kept = || {
                    generation
                        .packages
                        .get(package)
                        .or(before.packages.get(package))
                        .map(|installed| installed.title.clone())
                };
                if let Some((what, title)) = what.zip(title.or_else(kept)) {
                    past.push(Past { at, package: package.clone(), title, what });
                }
            }
        }
        past.reverse();
        past
    }
}

fn happened(before: Option<&Installed>, after: Option<&Installed>) -> Option<Happened> {
    match (before, after) {
        (None, Some(after)) => Some(Happened::Installed(after.version.clone())),
        (Some(before), None) => Some(Happened::Removed(before.version.clone())),
        (Some(before), Some(after)) if before.release != after.release => {
            let (from, to) = (before.version.clone(), after.version.clone());
            Some(if after.sequence < before.sequence {
                Happened::WentBack { from, to }
            } else {
                Happened::Updated { from, to }
            })
        }
        _ => None,
    }
}
