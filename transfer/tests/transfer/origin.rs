//! A server of a repository in memory, in the test's own process, that can be made to misbehave at any request; and a
//! client's store beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::tuf::{FileMeta, RoleName, TrustedMetadata, metadata_name};
use mirabelle_manifests::{Digest, Instant, TargetPath};
use mirabelle_transfer::{Fetcher, MetadataStore, RetryPolicy, TufClient, TufError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::repository::{NOW, Repository, time};

/// What a request is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The file.
    File(Vec<u8>),
    /// These bytes, said to be encoded so.
    Encoded(&'static str, Vec<u8>),
    /// The first bytes of this file, whose length is stated in full, then nothing more.
    Truncated(Vec<u8>),
    /// No file.
    Status(u16),
}

/// Makes a bad answer of a file.
pub(crate) type Twist = fn(Vec<u8>) -> Answer;

/// Takes the number of a request, counted from 1, its path and the honest answer; gives the answer.
type Meddle = Box<dyn FnMut(usize, &str, Answer) -> Answer + Send>;

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    meddle: Option<Meddle>,
}

/// The server.
pub(crate) struct Origin {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Origin {
    /// Serves nothing yet.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        tokio::spawn(serve(listener, state.clone()));
        Self { address, state }
    }

    /// Serves `repository` as it stands, beside what was served before.
    pub(crate) fn publish(&self, repository: &mut Repository) {
        let published = repository.publish();
        let consistent = repository.root.consistent_snapshot;
        let put = |role: &RoleName, version: u64, bytes: &[u8]| {
            self.put(&metadata(role, consistent.then_some(version)), bytes);
        };
        self.put(&metadata(&RoleName::root(), Some(repository.root.version)), &published.root);
        put(&RoleName::targets(), repository.targets.version, &published.targets);
        put(&RoleName::snapshot(), repository.snapshot.version, &published.snapshot);
        for (name, bytes) in &published.delegated {
            put(&RoleName::new(name), repository.delegated[name].0.version, bytes);
        }
        self.put("metadata/timestamp.json", &published.timestamp);
    }

    /// Serves these bytes at this path.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes.to_vec());
    }

    /// Serves a target under its hashed name.
    pub(crate) fn put_target(&self, path: &str, bytes: &[u8]) {
        let hashed = TargetPath::new(path).hashed(&Digest::of(bytes).to_string()).unwrap();
        self.put(&format!("targets/{hashed}"), bytes);
    }

    /// No longer serves this path.
    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path).unwrap();
    }

    /// Misbehaves from now on, counting requests anew.
    pub(crate) fn meddle(&self, meddle: impl FnMut(usize, &str, Answer) -> Answer + Send + 'static) {
        let mut state = self.state.lock().unwrap();
        state.meddle = Some(Box::new(meddle));
        state.requests.clear();
    }

    /// Behaves from now on, counting requests anew.
    pub(crate) fn behave(&self) {
        let mut state = self.state.lock().unwrap();
        state.meddle = None;
        state.requests.clear();
    }

    /// The paths that were asked for since.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Asks this server, twice at most and without waiting.
    pub(crate) fn repository(&self) -> mirabelle_transfer::Repository {
        let retry = RetryPolicy {
            attempts: 2,
            first_wait: Duration::ZERO,
            longest_wait: Duration::ZERO,
            ..RetryPolicy::default()
        };
        mirabelle_transfer::Repository::of(&Fetcher::new(self.address.parse().unwrap(), retry).unwrap())
    }
}

/// `metadata/<version>.<role>.json`
pub(crate) fn metadata(role: &RoleName, version: Option<u64>) -> String {
    format!("metadata/{}", metadata_name(role, version))
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => break,
            }
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
        let answer = {
            let mut state = state.lock().unwrap();
            state.requests.push(path.clone());
            // Role names come encoded and their files are named so; in targets, encoding is the address's alone.
            let file = state.files.get(&path).or_else(|| state.files.get(&decoded(&path)));
            let honest = file.cloned().map_or(Answer::Status(404), Answer::File);
            let number = state.requests.len();
            // Taken out while it runs: it may publish.
            match state.meddle.take() {
                Some(mut meddle) => {
                    drop(state);
                    (meddle(number, &path, honest), Some(meddle))
                }
                None => (honest, None),
            }
        };
        let (answer, meddle) = answer;
        if let Some(meddle) = meddle {
            state.lock().unwrap().meddle.get_or_insert(meddle);
        }
        let _ = stream.write_all(&answer.bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn decoded(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        let (head, length, body) = match self {
            Self::File(bytes) => ("200 OK".to_owned(), bytes.len(), &bytes[..]),
            Self::Encoded(token, bytes) => {
                (format!("200 OK\r\ncontent-encoding: {token}"), bytes.len(), &bytes[..])
            }
            Self::Truncated(bytes) => ("200 OK".to_owned(), bytes.len(), &bytes[..bytes.len() / 2]),
            Self::Status(status) => (format!("{status} No"), 0, &[][..]),
        };
        let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    }
}

/// A client's store, given the first root that it was made with.
pub(crate) struct Client {
    directory: tempfile::TempDir,
    store: MetadataStore,
}

impl Client {
    /// Trusts the root of `repository` as it stands.
    pub(crate) fn trusting(repository: &mut Repository) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = MetadataStore::new(&directory.path().join("store"));
        store.trust(&repository.publish().root).unwrap();
        Self { directory, store }
    }

    pub(crate) fn store(&self) -> &MetadataStore {
        &self.store
    }

    /// A file of the store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("store").join(name)
    }

    /// A directory beside the store.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let directory = self.directory.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Refreshes at [`NOW`].
    pub(crate) async fn refresh(&self, origin: &Origin) -> Result<TrustedMetadata, TufError> {
        self.refresh_at(origin, time(NOW)).await
    }

    /// Refreshes at `now`.
    pub(crate) async fn refresh_at(
        &self,
        origin: &Origin,
        now: Instant,
    ) -> Result<TrustedMetadata, TufError> {
        TufClient::refresh(&self.store, origin.repository(), now).await.map(TufClient::into_trusted)
    }

    /// A session at [`NOW`], to go on with.
    pub(crate) async fn session(&self, origin: &Origin) -> Result<TufClient<'_>, TufError> {
        TufClient::refresh(&self.store, origin.repository(), time(NOW)).await
    }

    /// Every file of the store but the lock, with its bytes.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let base = self.directory.path().join("store");
        let mut found = BTreeMap::new();
        let mut directories = vec![base.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if !path.ends_with("lock") {
                    let name = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }

    /// Makes the store hold exactly these files.
    pub(crate) fn hold<'a>(&self, files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) {
        let base = self.directory.path().join("store");
        fs::remove_dir_all(&base).unwrap();
        for (name, bytes) in files {
            fs::create_dir_all(base.join(name).parent().unwrap()).unwrap();
            fs::write(base.join(name), bytes).unwrap();
        }
    }
}

/// Raises every version, and lists a target that was not there before.
pub(crate) fn change(repository: &mut Repository) {
    let version = repository.next().targets.version;
    let file = mirabelle_manifests::tuf::TargetFile::of(&version.to_le_bytes(), None);
    repository.targets.targets.insert(TargetPath::new(format!("file-{version}")), file);
}

/// Delegates everything from targets to `name`, a role with a key of its own.
pub(crate) fn delegate(repository: &mut Repository, name: &str) {
    use mirabelle_keys::SigningKey;
    use mirabelle_manifests::PathPattern;
    use mirabelle_manifests::tuf::{DelegatedRole, Delegations, RoleKeys, Targets};
    let key = SigningKey::generate();
    let public = key.public();
    let delegations = repository.targets.delegations.get_or_insert_with(Delegations::default);
    delegations.keys.insert(public.id(), public.clone());
    delegations.roles.push(DelegatedRole {
        name: RoleName::new(name),
        keys: RoleKeys { keyids: vec![public.id()], threshold: 1 },
        terminating: false,
        paths: Some(vec![PathPattern::new("*"), PathPattern::new("*/*")]),
        path_hash_prefixes: None,
    });
    let document = Targets::new(1, repository.targets.expires);
    repository.delegated.insert(name.to_owned(), (document, key));
}

/// What is known of a file by its version alone.
pub(crate) fn bare(version: u64) -> FileMeta {
    FileMeta { hashes: None, length: None, version }
}

/// A result in a word: what of the repository was refused and why.
pub(crate) fn word<T>(result: Result<T, TufError>) -> String {
    use mirabelle_manifests::tuf::MetadataError as Refusal;
    use mirabelle_transfer::{FetchError, StoreError};
    match result {
        Ok(_) => "done".to_owned(),
        Err(TufError::Metadata { source, .. }) => match source {
            Refusal::Malformed { role, .. } => format!("{role} malformed"),
            Refusal::Signatures { role, .. } => format!("{role} signatures"),
            Refusal::Rollback { role, .. } => format!("{role} rollback"),
            Refusal::WrongVersion { role, .. } => format!("{role} wrong version"),
            Refusal::Mismatch { role, .. } => format!("{role} mismatch"),
            Refusal::Expired { role, .. } => format!("{role} expired"),
            Refusal::Vanished { role } => format!("{role} vanished"),
            Refusal::Unnamed { role, .. } => format!("{role} unnamed"),
            Refusal::OutOfOrder { role } => format!("{role} out of order"),
        },
        Err(TufError::OwnRoot(_)) => "own root".to_owned(),
        Err(TufError::Incomplete { role }) => format!("{role} incomplete"),
        Err(TufError::Unlisted { target }) => format!("{target} unlisted"),
        Err(TufError::TargetMismatch { target, .. }) => format!("{target} mismatch"),
        Err(TufError::Store(StoreError::Busy(_))) => "busy".to_owned(),
        Err(TufError::Store(StoreError::NoRoot(_))) => "no root".to_owned(),
        Err(TufError::Store(StoreError::Io(error))) => format!("disk: {error}"),
        Err(TufError::Fetch(FetchError::NotFound { .. })) => "not found".to_owned(),
        Err(TufError::Fetch(FetchError::Status { status, .. })) => format!("status {status}"),
        Err(TufError::Fetch(FetchError::TooLong { .. })) => "too long".to_owned(),
        Err(TufError::Fetch(FetchError::TooShort { .. } | FetchError::Unreachable { .. })) => {
            "broke off".to_owned()
        }
        Err(TufError::Fetch(FetchError::NotAPath { .. })) => "not a path".to_owned(),
        Err(TufError::Fetch(FetchError::Undecodable { .. })) => "undecodable".to_owned(),
        Err(TufError::Fetch(other)) => format!("fetch: {other}"),
    }
}
