//! The store's server: which request goes where, and that each passes the guard.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Store;
use super::guard::{self, Peer};
use super::routes::{doors, me, packages, rooms, shelves, tasks};

/// The most of a form.
const MAX_FORM_BYTES: usize = 16 << 10;

/// Serves until `stop`.
pub(super) async fn serve(store: Arc<Store>, listener: TcpListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/open/{ticket}", get(doors::open))
        .route("/assets/{name}", get(doors::asset))
        .route("/language", post(doors::language))
        .route("/about", get(doors::about))
        .route("/", get(shelves::discover))
        .route("/all", get(shelves::all))
        .route("/category/{name}", get(shelves::category))
        .route("/subject/{name}", get(shelves::subject))
        .route("/level/{name}", get(shelves::level))
        .route("/search", get(shelves::search))
        .route("/mine", get(shelves::mine))
        .route("/updates", get(shelves::updates))
        .route("/media/{digest}", get(shelves::media))
        .route("/package/{name}", get(packages::show))
        .route("/package/{name}/{action}", post(packages::act))
        .route("/activity", get(tasks::show))
        .route("/activity/{id}/{action}", post(tasks::act))
        .route("/events", get(tasks::events))
        .route("/sign-in", get(me::sign_in))
        .route("/sign-in/provider", post(me::to_provider))
        .route("/sign-in/return", get(me::back_from_provider))
        .route("/sign-in/code", post(me::with_code))
        .route("/sign-out", post(me::sign_out))
        .route("/me", get(me::show))
        .route("/me/export.json", get(me::export))
        .route("/me/{action}", post(me::act))
        .route("/rooms", get(rooms::show))
        .route("/rooms/{action}", post(rooms::act))
        .fallback(doors::not_found)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn_with_state(store.clone(), guarded))
        .with_state(store.clone());
    tracing::info!(address = %store.address(), "the store is open");
    let serving = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>());
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::error!(%error, "the store is closed");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// Nothing is answered that the guard does not pass; and everything that is, under its policy.
async fn guarded(
    State(store): State<Arc<Store>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let own = store.address();
    let mut response = if let Err(refused) = guard::check(&request, own) {
        tracing::warn!(?refused, "a request to the store is refused");
        refused.response()
    } else {
        let cookie = guard::cookie(request.headers(), own).map(ToOwned::to_owned);
        let session = cookie.zip(peer.user).and_then(|(cookie, user)| store.sessions.of(&cookie, user));
        if session.as_ref().is_some_and(|session| session.is_too_fast()) {
            too_fast()
        } else {
            if let Some(session) = session {
                request.extensions_mut().insert(session);
            }
            next.run(request).await
        }
    };
    let provider = store.known_provider();
    guard::protect(&mut response, provider.as_ref().map(|provider| provider.authorization_endpoint.as_str()));
    response
}

fn too_fast() -> Response {
    let mut response = Response::new(Body::from("too many requests\n"));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}
