//! Who may speak to the store, and what may come of its pages: looked at before any page is.
//!
//! | attack | defence |
//! |---|---|
//! | another machine | the port is on the loopback only |
//! | a page of elsewhere whose name leads to 127.0.0.1 (DNS rebinding) | `Host` is the store's own address, exactly |
//! | another user of this machine | the kernel says whose the connection is; the session is hers alone |
//! | a page of elsewhere that posts (CSRF) | `Origin`, `Sec-Fetch-Site`, a `SameSite` cookie, and the form's own secret |
//! | a script within a page | `default-src 'none'`; scripts and styles are two files of ours |
//! | the store in somebody's frame | `frame-ancestors 'none'` |
//! | requests without end | a pace for each session, small bodies, times |

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

use crate::platform;

/// The cookie's name; ports share cookies, so the port is in it.
pub(super) fn cookie_name(own: SocketAddr) -> String {
    format!("mirabelle-{}", own.port())
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// The user; nothing, where the kernel does not say.
    pub(super) user: Option<u32>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let own = stream.io().local_addr().ok();
        Self { user: own.and_then(|own| platform::user_of(*stream.remote_addr(), own)) }
    }
}

/// Why a request is refused before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It names another host.
    Host,
    /// It comes from another page.
    Origin,
}

impl Refused {
    pub(super) fn response(self) -> Response<Body> {
        let said = match self {
            Self::Host => "this is not the address of the store\n",
            Self::Origin => "the store takes no forms from elsewhere\n",
        };
        let mut response = Response::new(Body::from(said));
        *response.status_mut() =
            if self == Self::Host { StatusCode::MISDIRECTED_REQUEST } else { StatusCode::FORBIDDEN };
        response
    }
}

/// What a request says of where it comes from.
pub(super) fn check(request: &Request<Body>, own: SocketAddr) -> Result<(), Refused> {
    let headers = request.headers();
    let one = |name: &HeaderName| {
        let mut all = headers.get_all(name).iter();
        all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
    };
    if one(&HOST) != Some(own.to_string().as_str()) {
        return Err(Refused::Host);
    }
    let fetched = one(&HeaderName::from_static("sec-fetch-site"));
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read {
        // Navigations from elsewhere arrive: the desktop's link, the provider's redirect. Nothing else reads from here.
        let navigates = one(&HeaderName::from_static("sec-fetch-mode")).is_none_or(|mode| mode == "navigate");
        let foreign = matches!(fetched, Some("cross-site" | "same-site"));
        return if foreign && !navigates { Err(Refused::Origin) } else { Ok(()) };
    }
    let own_origin = format!("http://{own}");
    if one(&ORIGIN) != Some(own_origin.as_str()) || fetched.is_some_and(|fetched| fetched != "same-origin") {
        return Err(Refused::Origin);
    }
    Ok(())
}

/// The session's cookie.
pub(super) fn cookie(headers: &HeaderMap, own: SocketAddr) -> Option<&str> {
    let name = cookie_name(own);
    let mut pairs = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split("; "));
    pairs.find_map(|pair| pair.strip_prefix(name.as_str())?.strip_prefix('='))
}

/// What goes with every answer. A form that leads to the provider is sent there by a redirect, which browsers count as its target.
pub(super) fn protect(response: &mut Response<Body>, provider: Option<&str>) {
    let provider = provider.and_then(origin_of).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         form-action 'self' {provider}; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(policy);
    }
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Scheme, host and port of an address.
fn origin_of(address: &str) -> Option<String> {
    let url = reqwest::Url::parse(address).ok()?;
    let origin = url.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> SocketAddr {
        "127.0.0.1:8702".parse().unwrap()
    }

    fn asks(method: &str, headers: &[(&str, &str)]) -> Result<(), Refused> {
        let request =
            headers.iter().fold(Request::builder().method(method).uri("/"), |request, (name, value)| {
                request.header(*name, *value)
            });
        check(&request.body(Body::empty()).unwrap(), own())
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8702");
    const OWN: (&str, &str) = ("origin", "http://127.0.0.1:8702");

    #[test]
    fn only_the_stores_own_address_is_answered() {
        assert_eq!(asks("GET", &[HOST]), Ok(()));
        for host in
            ["localhost:8702", "127.0.0.1", "127.0.0.1:8703", "store.example:8702", "127.0.0.1:8702.example"]
        {
            assert_eq!(asks("GET", &[("host", host)]), Err(Refused::Host), "{host}");
        }
        assert_eq!(asks("GET", &[]), Err(Refused::Host));
        assert_eq!(asks("GET", &[HOST, HOST]), Err(Refused::Host), "two of them");
    }

    #[test]
    fn forms_come_from_the_stores_own_pages() {
        assert_eq!(asks("POST", &[HOST, OWN]), Ok(()));
        assert_eq!(asks("POST", &[HOST, OWN, ("sec-fetch-site", "same-origin")]), Ok(()));
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:8703",
            "https://127.0.0.1:8702",
            "http://localhost:8702",
        ] {
            assert_eq!(asks("POST", &[HOST, ("origin", origin)]), Err(Refused::Origin), "{origin}");
        }
        assert_eq!(asks("POST", &[HOST]), Err(Refused::Origin), "a form without origin");
        assert_eq!(asks("POST", &[HOST, OWN, ("sec-fetch-site", "cross-site")]), Err(Refused::Origin));
        assert_eq!(asks("DELETE", &[HOST]), Err(Refused::Origin));
    }

    #[test]
    fn elsewhere_may_lead_here_and_read_nothing() {
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(
            asks("GET", &[HOST, cross, ("sec-fetch-mode", "navigate")]),
            Ok(()),
            "the provider leads back"
        );
        for mode in ["no-cors", "cors", "same-origin"] {
            assert_eq!(asks("GET", &[HOST, cross, ("sec-fetch-mode", mode)]), Err(Refused::Origin), "{mode}");
        }
    }

    #[test]
    fn cookies_are_told_apart_by_port() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("mirabelle-8703=no; mirabelle-8702=yes; x=y"));
        assert_eq!(cookie(&headers, own()), Some("yes"));
        assert_eq!(cookie(&HeaderMap::new(), own()), None);
    }

    #[test]
    fn every_answer_is_under_the_policy() {
        let mut response = Response::new(Body::empty());
        protect(&mut response, Some("https://connexion.example/auth?x=1"));
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("form-action 'self' https://connexion.example;"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
