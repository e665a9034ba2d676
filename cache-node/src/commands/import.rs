//! `import`: fill the node from a directory that somebody brought: an export's, or a copy of an origin's published tree.
//!
//! ```text
//! DIR ── served on loopback, by this process, to itself ──▶ a sync with that as its only upstream
//! ```
//!
//! So a stick is an upstream like any other: everything it says is verified, what is on it goes on where an import was cut, an older
//! one than what is held is refused, and nothing is asked of the network. What was fetched before a fault was found is kept, as it
//! is right.
//!
//! Threats and the defence for each:
//! - *Links out of the directory, devices, pipes*: refused by their names (`stick.rs`); 403 to the sync, which ends.
//! - *Files that are wrong, cut short or endless*: every fetch has its signed or configured limit, and every object its digest.
//! - *Somebody else on this machine who asks the same port*: she can read what is on the stick, which is public, while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use mirabelle_content::ObjectStore;
use mirabelle_manifests::{Digest, Instant};
use mirabelle_terminal::{Failure, Kind, OrFail, bytes};
use mirabelle_transfer::Link;
use mirabelle_transfer::serve::{
    Body, Naming, file_of, problem, run as run_server, serve_file, serve_object,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::mirror::Mirror;
use crate::stick::{Stick, StickError};

pub(super) async fn run(context: &Context, directory: &Path) -> Result<(), Failure> {
    let mut config = context.config()?;
    if !directory.join("metadata/timestamp.json").exists() {
        return Err(Failure::no(format!("`{}` holds no export", directory.display()))
            .hint("name the directory that has `metadata/timestamp.json` in it"));
    }
    let what = || format!("cannot import from `{}`", directory.display());
    let listener = TcpListener::bind("127.0.0.1:0").await.or_fail(what)?;
    let address = format!("http://{}/", listener.local_addr().or_fail(what)?);
    config.upstreams = vec![address.parse().map_err(|_| Failure::usage(what()))?];
    // What is read from a stick is not the link's.
    let mirror = Mirror::open(context.site.clone(), config, &Link::unlimited())?;

    let tree = Arc::new(Tree::new(directory));
    let stop = CancellationToken::new();
    let serving = {
        let (tree, stop) = (tree.clone(), stop.clone());
        tokio::spawn(run_server(
            listener,
            move |request, _| {
                let tree = tree.clone();
                async move { tree.answer(request).await }
            },
            stop,
        ))
    };
    let received = context.site.state().received_bytes;
    let result = mirror.sync(Instant::now()).await;
    // What came from a stick did not come over the link.
    let mut state = context.site.state();
    state.received_bytes = received;
    let written = context.site.write_state(&state);
    mirror.close();
    stop.cancel();
    serving.await.or_fail(what)?;

    let outcome = result.map_err(|failure| tree.explain(failure, &address))?;
    written?;
    context.output.print(&outcome, |outcome| {
        let fetched =
            if outcome.fetched.is_empty() { "nothing new".to_owned() } else { outcome.fetched.join(", ") };
        format!(
            "complete at snapshot {}: {} releases held; {fetched}; {} read from `{}`",
            outcome.snapshot,
            outcome.releases.len(),
            bytes(outcome.received_bytes),
            directory.display()
        )
    });
    Ok(())
}

/// The directory, as a server.
struct Tree {
    stick: Stick,
    store: ObjectStore,
    /// The first name that was refused for what it is.
    refused: Mutex<Option<StickError>>,
}

impl Tree {
    fn new(directory: &Path) -> Self {
        Self {
            stick: Stick::new(directory),
            store: ObjectStore::read_only(directory),
            refused: Mutex::default(),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let not_here = || problem(StatusCode::NOT_FOUND, "there is no such file here");
        let (method, headers) = (request.method(), request.headers());
        let Some(path) = file_of(request.uri().path()) else { return not_here() };
        let found = {
            let (tree, below) = (self.clone(), path.as_str().to_owned());
            tokio::task::spawn_blocking(move || tree.find(&below)).await
        };
        let response = match found {
            Ok(Ok(Some(Found::Object(object)))) => serve_object(method, headers, &self.store, object).await,
            Ok(Ok(Some(Found::File(file)))) => {
                let below = path.as_str();
                let mutable = below == "metadata/timestamp.json" || below.starts_with("routes/");
                let naming = if mutable { Naming::Mutable } else { Naming::Immutable };
                serve_file(method, headers, &file, naming).await
            }
            Ok(Ok(None)) => return not_here(),
            Ok(Err(error)) => {
                self.refuse(error);
                return problem(StatusCode::FORBIDDEN, "this file is not read");
            }
            Err(_) => return problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read"),
        };
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // Whoever goes on after its end knows that it should be longer.
            self.refuse(StickError::Short(self.stick.path(path.as_str())));
        }
        response
    }

    /// Remembers the first, for whoever brought the stick.
    fn refuse(&self, error: StickError) {
        tracing::error!(%error, "a file on the stick was refused");
        self.refused().get_or_insert(error);
    }

    fn refused(&self) -> MutexGuard<'_, Option<StickError>> {
        // Each change is whole before anything can panic.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, below: &str) -> Result<Option<Found>, StickError> {
        let object: Option<Digest> =
            below.strip_prefix("objects/").and_then(|name| name.replacen('/', "", 1).parse().ok());
        if self.stick.length(below)?.is_some() {
            return Ok(Some(match object {
                Some(object) => Found::Object(object),
                None => Found::File(self.stick.path(below)),
            }));
        }
        let Some(object) = object else { return Ok(None) };
        // As a node keeps it.
        Ok(self.stick.length(&format!("{below}.zst"))?.map(|_| Found::Object(object)))
    }

    /// A failed sync in the words of whoever brought the stick: its files instead of addresses, and no network.
    fn explain(&self, failure: Failure, address: &str) -> Failure {
        if failure.kind() == Kind::Machine {
            return failure;
        }
        let directory = self.stick.directory().display();
        let name = format!("cannot import from `{directory}`");
        let told = failure.render().replace(address, &format!("{directory}/"));
        let told: Vec<&str> = told
            .lines()
            .filter(|line| !line.starts_with("hint: "))
            .map(|line| line.trim_start().trim_start_matches("error: ").trim_start_matches("caused by: "))
            .collect();
        let refused = self.refused();
        let causes = refused.iter().map(ToString::to_string).chain(told.into_iter().map(str::to_owned));
        let text = causes.fold(name, |text, cause| format!("{text}\n  caused by: {cause}"));
        let is_hostile = matches!(&*refused, Some(StickError::Link(_) | StickError::Special(_)));
        match failure.kind() {
            kind if is_hostile || kind == Kind::Trust => Failure::trust(text),
            Kind::Usage => Failure::usage(text),
            _ => Failure::no(text),
        }
        .hint("nothing of what was held is lost; what was right on the stick is kept, and a sync fetches the rest")
    }
}

/// What a name on the stick is.
enum Found {
    Object(Digest),
    File(PathBuf),
}
