//! What was asked for: the page, its live rows, giving up and trying again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;

use super::{Page, Sent, Visitor, html, see};
use crate::store::Store;
use crate::store::pages;
use crate::store::view::{Notice, Task, Trouble};

/// How often a row is sent at most: nobody reads faster.
const PACE: Duration = Duration::from_millis(300);
/// A connection that says nothing is told that the other end is there.
const ALIVE: Duration = Duration::from_secs(15);

pub(in crate::store) async fn show(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let found = store.find(&visitor).await?;
    html(&pages::activity(&store.frame(&visitor, &found), &found.tasks))
}

/// The rows that changed, as they change (HTML Living Standard, 9.2). All of them first: something may have ended between the page and
/// this, or while the connection was broken.
pub(in crate::store) async fn events(State(store): State<Arc<Store>>, visitor: Visitor) -> Response<Body> {
    let mut changes = store.activity.watch();
    changes.mark_changed();
    let state = (store, visitor, changes, Vec::<Task>::new());
    let rows = stream::unfold(state, async |(store, visitor, mut changes, mut shown)| {
        loop {
            changes.changed().await.ok()?;
            tokio::time::sleep(PACE).await;
            changes.mark_unchanged();
            // Another person may have signed in, or nobody any more.
            let found = store.find(&visitor).await.ok()?;
            let frame = store.frame(&visitor, &found);
            let changed: Vec<&Task> = found.tasks.iter().filter(|task| !shown.contains(task)).collect();
            let Some(text) = (!changed.is_empty()).then(|| {
                changed.iter().rev().map(|task| pages::task_row(&frame, task).0).collect::<String>()
            }) else {
                continue;
            };
            shown.clone_from(&found.tasks);
            drop(frame);
            return Some((
                Ok::<_, Infallible>(Event::default().event("rows").data(text)),
                (store, visitor, changes, shown),
            ));
        }
    });
    Sse::new(rows).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}

pub(in crate::store) async fn act(
    State(store): State<Arc<Store>>,
    Path((id, action)): Path<(u64, String)>,
    sent: Sent,
) -> Page {
    let (visitor, who) = (&sent.visitor, sent.visitor.who());
    match action.as_str() {
        "cancel" => {
            store.activity.cancel(id, who);
            see("/activity")
        }
        "retry" => {
            let queued = store.activity.again(id, who).and_then(|asked| store.activity.ask(asked, who));
            if queued.is_some() {
                visitor.session.note(Notice::Begun);
            }
            see("/activity")
        }
        _ => store.trouble(visitor, Trouble::NotFound).await,
    }
}
