//! Answering with a file: found in memory, or opened; then its head, and the part of it that was asked for.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{ALLOW, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use mirabelle_content::{Form, ObjectStore};
use mirabelle_manifests::Digest;

use super::body::{Body, became_shorter, body};
use super::cache::{self, Content, Identity, Key, Known};
use super::gate::Opened;
use super::range::{Entity, head};
use super::{Naming, gate, problem};

/// Files up to this size are answered from memory: above it, sending the file's pages is cheaper than what they would
/// push out of the cache.
const SMALL_BYTES: u64 = 64 << 10;
/// Files up to this size that may change are named by the digest of their content.
const MAX_MUTABLE_BYTES: u64 = 1 << 20;

/// What is named by its content may be kept for a year.
pub(super) const NEVER_CHANGES: &str = "public, max-age=31536000, immutable";
/// What may change is asked for again each time.
const MAY_CHANGE: &str = "no-cache";

/// Answers a request with a file.
pub async fn serve_file(method: &Method, headers: &HeaderMap, path: &Path, naming: Naming) -> Response<Body> {
    match file(method, headers, path, naming).await {
        Some(response) => response,
        None => not_here(),
    }
}

/// The same, or nothing where there is no such file.
pub(super) async fn file(
    method: &Method,
    headers: &HeaderMap,
    path: &Path,
    naming: Naming,
) -> Option<Response<Body>> {
    if let Some(refusal) = refused(method) {
        return Some(refusal);
    }
    match find(path, naming).await {
        Ok(found) => Some(answer(method, headers, found?)),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "file could not be served");
            Some(problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read"))
        }
    }
}

pub(super) fn not_here() -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "there is no such file here")
}

/// The answer to whoever wants something else than to read.
pub(super) fn refused(method: &Method) -> Option<Response<Body>> {
    if *method == Method::GET || *method == Method::HEAD {
        return None;
    }
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}

/// A file to answer with.
pub(super) struct Found {
    pub(super) form: Form,
    entity: Entity,
    content: Content,
}

/// Answers with what was found.
pub(super) fn answer(method: &Method, headers: &HeaderMap, found: Found) -> Response<Body> {
    let (mut response, range) = match head(headers, &found.entity) {
        Ok(head) => head,
        Err(answered) => return answered,
    };
    if *method == Method::GET {
        *response.body_mut() = match found.content {
            Content::Memory(bytes) => {
                // Both lie within what is in memory.
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                body(bytes.slice(place(range.start)..place(range.end)))
            }
            Content::Open(file) => Body::of_file(file, range),
            // Nobody finds a file so: it is read or opened first.
            Content::OnDisk => {
                return problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read");
            }
        };
    }
    response
}

async fn find(path: &Path, naming: Naming) -> io::Result<Option<Found>> {
    let key = Key::of_file(path);
    match remembered(&key, naming) {
        Some(found) => Ok(Some(found)),
        // What is rare does not make every answer's future larger.
        None => Box::pin(find_on_disk(key, path.into(), naming)).await,
    }
}

async fn find_on_disk(key: Key, path: Arc<Path>, naming: Naming) -> io::Result<Option<Found>> {
    match gate::open_at_once(&path) {
        Opened::NotThere => return Ok(None),
        Opened::Now(file) => {
            return match examined(&file, path, Form::Plain, naming)? {
                Some(known) => read(key, known, file, naming).await.map(Some),
                None => Ok(None),
            };
        }
        Opened::Later => {}
    }
    let opened = gate::apart(move || {
        let Some(file) = gate::open(&path)? else { return Ok(None) };
        Ok(examined(&file, path, Form::Plain, naming)?.map(|known| (known, file)))
    });
    match opened.await? {
        Some((known, file)) => read(key, known, file, naming).await.map(Some),
        None => Ok(None),
    }
}

/// An object in the form that it is stored in.
pub(super) async fn find_object(store: &ObjectStore, object: Digest) -> io::Result<Option<Found>> {
    let key = Key::of_object(store, object);
    match remembered(&key, Naming::Immutable) {
        Some(found) => Ok(Some(found)),
        None => Box::pin(find_object_on_disk(key, store.clone(), object)).await,
    }
}

async fn find_object_on_disk(key: Key, store: ObjectStore, object: Digest) -> io::Result<Option<Found>> {
    let opened = gate::apart(move || {
        let Some((form, path)) = store.locate(object) else { return Ok(None) };
        let Some(file) = gate::open(&path)? else { return Ok(None) };
        Ok(examined(&file, path.into(), form, Naming::Immutable)?.map(|known| (known, file)))
    });
    match opened.await? {
        Some((known, file)) => read(key, known, file, Naming::Immutable).await.map(Some),
        None => Ok(None),
    }
}

/// What is known already and still so, without waiting for anything.
fn remembered(key: &Key, naming: Naming) -> Option<Found> {
    let mut known = cache::look_up(key)?;
    let now = Instant::now();
    let is_same =
        |file: &File| file.metadata().is_ok_and(|metadata| Identity::of(&metadata) == known.identity);
    let needs_no_look = match &known.content {
        Content::Memory(_) => true,
        // Looking at what is open costs next to nothing; being removed or renamed changes its times.
        Content::Open(file) => is_same(file),
        Content::OnDisk => false,
    };
    if naming == Naming::Immutable && known.is_fresh(now) && needs_no_look {
        return Some(found(known, naming));
    }
    let same = match gate::open_at_once(&known.path) {
        Opened::Later => return None,
        Opened::NotThere => None,
        Opened::Now(file) => Some(file).filter(is_same),
    };
    let Some(file) = same else {
        cache::remove(key);
        return None;
    };
    match known.content {
        Content::Memory(_) => cache::saw(key, now),
        // Its content had to make room once; asked for again, it has earned its place.
        Content::Open(_) | Content::OnDisk if is_small(&known.identity, naming) => return None,
        Content::Open(_) | Content::OnDisk => {
            known.content = Content::Open(Arc::new(file));
            known.seen = now;
            cache::keep(key.clone(), known.clone());
        }
    }
    Some(found(known, naming))
}

fn found(known: Known, naming: Naming) -> Found {
    let length = known.identity.length();
    let cache = if naming == Naming::Immutable { NEVER_CHANGES } else { MAY_CHANGE };
    Found { form: known.form, entity: Entity { length, etag: known.etag, cache }, content: known.content }
}

fn is_small(identity: &Identity, naming: Naming) -> bool {
    identity.length() <= if naming == Naming::Immutable { SMALL_BYTES } else { MAX_MUTABLE_BYTES }
}

/// What there is to know about an open file, but for its content; nothing of what is no file.
fn examined(file: &File, path: Arc<Path>, form: Form, naming: Naming) -> io::Result<Option<Known>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let identity = Identity::of(&metadata);
    if naming == Naming::Mutable && !is_small(&identity, naming) {
        return Err(io::Error::other("a file that changes is too large to be named by its content"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let etag = match form {
        // Which frame it is: see `object.rs`.
        Form::Zstd => format!("\"{name}-{:x}-{:x}\"", identity.length(), identity.written()),
        Form::Plain | Form::Executable => format!("\"{name}\""),
    };
    let etag = HeaderValue::from_str(&etag).map_err(io::Error::other)?;
    Ok(Some(Known { path, form, identity, etag, content: Content::OnDisk, seen: Instant::now() }))
}

/// Reads a small file, and remembers what is known.
async fn read(key: Key, mut known: Known, file: File, naming: Naming) -> io::Result<Found> {
    let file = Arc::new(file);
    if is_small(&known.identity, naming) {
        let length = usize::try_from(known.identity.length()).map_err(io::Error::other)?;
        if !gate::is_in_memory(&file, 0, length) {
            gate::read_ahead(file.clone(), 0, length).await?;
        }
        let mut content = vec![0; length];
        let mut done = 0;
        while done < length {
            done += match rustix::io::pread(&*file, &mut content[done..], done as u64)? {
                0 => return Err(became_shorter()),
                read => read,
            };
        }
        if naming == Naming::Mutable {
            let etag = format!("\"{}\"", Digest::of(&content));
            known.etag = HeaderValue::from_str(&etag).map_err(io::Error::other)?;
        }
        known.content = Content::Memory(content.into());
    } else {
        known.content = Content::Open(file);
    }
    cache::keep(key, known.clone());
    Ok(found(known, naming))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fs_err as fs;
    use http_body_util::BodyExt;

    use super::*;

    async fn get(path: &Path, naming: Naming) -> (StatusCode, Bytes, Option<HeaderValue>) {
        let response = serve_file(&Method::GET, &HeaderMap::new(), path, naming).await;
        let (head, body) = response.into_parts();
        let etag = head.headers.get(hyper::header::ETAG).cloned();
        (head.status, body.collect().await.unwrap().to_bytes(), etag)
    }

    #[tokio::test]
    async fn a_file_that_changes_is_answered_as_it_is_now_with_a_tag_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("timestamp.json");
        assert_eq!(get(&path, Naming::Mutable).await.0, StatusCode::NOT_FOUND);
        let mut tags = Vec::new();
        for text in ["one", "two", "six"] {
            let new = directory.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
            for _ in 0..3 {
                let (status, body, etag) = get(&path, Naming::Mutable).await;
                assert_eq!((status, &body[..]), (StatusCode::OK, text.as_bytes()));
                tags.push(etag.unwrap());
            }
        }
        tags.dedup();
        assert_eq!(tags.len(), 3);
        fs::remove_file(&path).unwrap();
        assert_eq!(get(&path, Naming::Mutable).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_file_that_was_taken_away_is_gone_at_once_for_whoever_says_so_and_soon_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        for length in [100, 200_000] {
            let path = directory.path().join(length.to_string());
            fs::write(&path, vec![1; length]).unwrap();
            assert_eq!(get(&path, Naming::Immutable).await.1.len(), length);
            assert_eq!(get(&path, Naming::Immutable).await.1.len(), length);
            fs::remove_file(&path).unwrap();
            forget_after_its_time(&path);
            assert_eq!(get(&path, Naming::Immutable).await.0, StatusCode::NOT_FOUND);

            fs::write(&path, vec![2; length]).unwrap();
            assert_eq!(get(&path, Naming::Immutable).await.1[0], 2);
            fs::remove_file(&path).unwrap();
            cache::forget(&path);
            assert_eq!(get(&path, Naming::Immutable).await.0, StatusCode::NOT_FOUND);
        }
    }

    /// As if it had been looked at long ago.
    fn forget_after_its_time(path: &Path) {
        cache::saw(
            &Key::of_file(path),
            Instant::now().checked_sub(std::time::Duration::from_mins(1)).unwrap(),
        );
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, directory.path().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
        for name in ["d", "pipe", "none", "d/none"] {
            let answered = get(&directory.path().join(name), Naming::Immutable).await;
            assert_eq!(answered.0, StatusCode::NOT_FOUND, "{name}");
        }
    }
}
