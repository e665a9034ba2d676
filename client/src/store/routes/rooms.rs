//! Orders for rooms.

use std::sync::Arc;

use axum::extract::{Path, State};
use jiff::civil;
use mirabelle_identity::{Action, RequestId, Wanted};
use mirabelle_manifests::{Instant, Keep, SiteId};

use super::packages::end_of_day;
use super::{Found, Page, Sent, Visitor, html, see};
use crate::store::Store;
use crate::store::pages;
use crate::store::person::SignedPerson;
use crate::store::view::{Draft, Field, Item, Notice, Rooms, Trouble, WhoMay};

pub(in crate::store) async fn show(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    store.rooms_page(&visitor, None, None).await
}

pub(in crate::store) async fn act(
    State(store): State<Arc<Store>>,
    Path(action): Path<String>,
    sent: Sent,
) -> Page {
    let visitor = &sent.visitor;
    let Some(person) = visitor.session.person() else {
        return store.trouble(visitor, Trouble::NeedsSignIn).await;
    };
    if action == "cancel" {
        let order = RequestId::try_from(sent.field("order").to_owned());
        let college = sent.field("college").parse::<SiteId>();
        let (Ok(order), Ok(college)) = (order, college) else {
            return store.trouble(visitor, Trouble::Forged).await;
        };
        return match store.tell(&person, Action::Cancel { order }, &college).await {
            Ok(()) => {
                visitor.session.note(Notice::OrderCancelled);
                see("/rooms")
            }
            Err(trouble) => store.rooms_page(visitor, None, Some(trouble)).await,
        };
    }
    let found = store.find(visitor).await?;
    let (mut draft, read) = draft(&found, &person, &sent);
    let Some((order, college)) = read else { return store.rooms_page(visitor, Some(draft), None).await };
    let asked = match action.as_str() {
        "check" => store.assess(&person, Action::Assess { order }, &college).await.map(Some),
        "order" => store.tell(&person, Action::Order { order }, &college).await.map(|()| None),
        _ => return store.trouble(visitor, Trouble::NotFound).await,
    };
    match asked {
        Ok(None) => {
            visitor.session.note(Notice::Ordered);
            see("/rooms")
        }
        Ok(assessment) => {
            draft.assessment = assessment;
            store.rooms_page(visitor, Some(draft), None).await
        }
        Err(trouble) => store.rooms_page(visitor, Some(draft), Some(trouble)).await,
    }
}

impl Store {
    async fn rooms_page(&self, visitor: &Visitor, draft: Option<Draft>, trouble: Option<Trouble>) -> Page {
        let found = self.find(visitor).await?;
        let person = visitor.session.person();
        let mut trouble = trouble;
        let colleges = person.as_ref().map(|person| person.colleges()).unwrap_or_default();
        let mut orders = Vec::new();
        for college in &colleges {
            let Some(person) = &person else { break };
            match self.orders_of(person, college).await {
                Ok(of_college) => orders.extend(of_college),
                Err(silent) => {
                    trouble.get_or_insert(silent);
                }
            }
        }
        if colleges.is_empty() {
            trouble.get_or_insert(Trouble::NeedsSignIn);
        }
        let may_order = |item: &&Item| matches!(item.who, WhoMay::Anyone | WhoMay::Teachers);
        let packages = found.items.iter().filter(may_order).collect();
        let shown = Rooms { packages, colleges: &colleges, orders, draft, trouble };
        html(&pages::rooms(&self.frame(visitor, &found), &shown))
    }
}

/// A form as it was filled in; and the order, if it can be read.
fn draft(found: &Found, person: &SignedPerson, sent: &Sent) -> (Draft, Option<(Wanted, SiteId)>) {
    let text = |name: &str| sent.field(name).to_owned();
    let mut draft = Draft {
        college: text("college"),
        room: text("room"),
        package: text("package"),
        date: text("date"),
        time: text("time"),
        keep_until: text("keep_until"),
        ..Draft::default()
    };
    let mut wrong = |field: Field| draft.wrong.push(field);
    let college = draft.college.parse::<SiteId>().ok().filter(|college| person.teaches_at(college));
    let room = draft.room.parse().ok();
    let item: Option<&Item> = found.items.iter().find(|item| item.package.as_str() == draft.package);
    let date = draft.date.parse::<civil::Date>().ok();
    let at = date.zip(draft.time.parse::<civil::Time>().ok());
    let by =
        at.and_then(|(date, time)| date.to_datetime(time).to_zoned_datetime(found.stock.zone.clone()).ok());
    let by = by.map(|by| by.timestamp()).filter(|by| *by > Instant::now());
    let until = (!draft.keep_until.is_empty()).then(|| end_of_day(found, &draft.keep_until));
    for (field, is_wrong) in [
        (Field::College, college.is_none()),
        (Field::Room, room.is_none()),
        (Field::Package, item.is_none()),
        (Field::When, by.is_none()),
        (Field::KeepUntil, until == Some(None)),
    ] {
        if is_wrong {
            wrong(field);
        }
    }
    let newest = item.and_then(|item| found.stock.sequences.get(&item.package).copied());
    let keep = until.flatten().zip(newest).map(|(until, sequence)| Keep { sequence, until });
    let read = if draft.wrong.is_empty() {
        college.zip(room).zip(item).zip(by).map(|(((college, room), item), by)| {
            (Wanted { by, keep, package: item.package.clone(), room }, college)
        })
    } else {
        None
    };
    (draft, read)
}
