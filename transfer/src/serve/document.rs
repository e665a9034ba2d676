//! Answering with a file of a published tree: as a difference or compressed, if the asker can read that and it was made
//! (RFC 9842), else plain.

use std::path::Path;

use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Response, StatusCode};
use mirabelle_manifests::EntryPath;

use super::Naming;
use super::body::Body;
use super::file::{file, serve_file};
use crate::encoding::EncodedForms;

/// What the answer to a request for a document depends on.
const VARIES: &str = "accept-encoding, available-dictionary";

/// Answers a request with a file of a published tree, in the best encoding that the asker accepts.
pub async fn serve_document(
    method: &Method,
    headers: &HeaderMap,
    tree: &Path,
    path: &EntryPath,
    naming: Naming,
) -> Response<Body> {
    let plain = tree.join(path.as_str());
    if naming == Naming::Mutable {
        return serve_file(method, headers, &plain, naming).await;
    }
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let forms = EncodedForms::of(tree).offered(
        path.as_str(),
        field(ACCEPT_ENCODING.as_str()).unwrap_or_default(),
        field("available-dictionary"),
    );
    let mut best = None;
    for (form, encoding) in forms {
        if let Some(response) = file(method, headers, &form, naming).await {
            best = Some((response, Some(encoding)));
            break;
        }
    }
    let (mut response, encoding) = match best {
        Some(best) => best,
        None => (serve_file(method, headers, &plain, naming).await, None),
    };
    match response.status() {
        StatusCode::NOT_MODIFIED => {
            response.headers_mut().insert(VARY, HeaderValue::from_static(VARIES));
        }
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
            let fields = response.headers_mut();
            fields.insert(VARY, HeaderValue::from_static(VARIES));
            if let Some(encoding) = encoding {
                fields.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.token()));
            }
            if let Ok(pattern) = HeaderValue::try_from(format!("match=\"/{}\"", later_versions(path))) {
                fields.insert("use-as-dictionary", pattern);
            }
        }
        _ => {}
    }
    response
}

/// The paths that later versions of this file will have, as a pattern: `metadata/8.catalogue.json` is a dictionary for
/// `metadata/*.catalogue.json`, and so is the digest before a target's name.
fn later_versions(path: &EntryPath) -> String {
    let (directory, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    let name = name.split_once('.').map_or(name, |(_, name)| name);
    format!("{directory}/*.{name}")
}
