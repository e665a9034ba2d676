//! Coming in, the language, and files that belong to every page.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, SET_COOKIE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;

use super::{NoSession, Page, Sent, Visitor, html, see};
use crate::store::Store;
use crate::store::guard::{Peer, cookie_name};
use crate::store::pages;
use crate::store::view::{Language, Trouble};

const STYLE: &str = include_str!("../assets/store.css");
const SCRIPT: &str = include_str!("../assets/store.js");
const SIGN: &str = include_str!("../assets/store.svg");

/// A ticket becomes a session's cookie, once.
pub(in crate::store) async fn open(
    State(store): State<Arc<Store>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(ticket): Path<String>,
) -> Page {
    let Some(cookie) = peer.user.and_then(|user| store.sessions.enter(&ticket, user)) else {
        tracing::warn!(user = peer.user, "somebody came with a ticket that does not count");
        return Err(NoSession.into_response());
    };
    let name = cookie_name(store.address());
    // Lax: the provider leads back here from elsewhere. What changes anything is guarded by more (`guard.rs`).
    let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax", cookie.as_str());
    let mut response = see("/")?;
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

pub(in crate::store) async fn asset(Path(name): Path<String>) -> Response<Body> {
    let (kind, content) = match name.as_str() {
        "store.css" => ("text/css; charset=utf-8", STYLE),
        "store.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "store.svg" => ("image/svg+xml", SIGN),
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    let mut response = Response::new(Body::from(content));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Another release of the program has others.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    response
}

/// Another language, on the same page.
pub(in crate::store) async fn language(sent: Sent) -> Page {
    let language = if sent.field("lang") == "en" { Language::English } else { Language::French };
    sent.visitor.session.speak(language);
    let back = sent.field("back");
    // A page of ours, and nowhere else.
    let is_ours = back.starts_with('/') && !back.starts_with("//") && !back.contains('\\');
    see(if is_ours { back } else { "/" })
}

pub(in crate::store) async fn about(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    let found = store.find(&visitor).await?;
    html(&pages::about(&store.frame(&visitor, &found)))
}

pub(in crate::store) async fn not_found(State(store): State<Arc<Store>>, visitor: Visitor) -> Page {
    store.trouble(&visitor, Trouble::NotFound).await
}
